/**
 * Captions generated in the page: for the player, and for exports of live sessions, which are not stored on the server.
 * Exports of jobs come from the API, whose segmentation is more elaborate.
 *
 * A cue has at most two lines of 42 characters, lasts at most seven seconds and begins and ends at word boundaries. Cues
 * do not overlap.
 */

import { sanitize } from "./editing";
import type { Segment, Transcript } from "./result";
import { isDoubtful } from "./result";

export const MAX_LINE_CHARS = 42;
/** Precedes words that are probably wrong. */
export const DOUBTFUL_MARK = "(?)";
const MAX_CUE_S = 7;
const MIN_CUE_S = 0.5;

export interface Cue {
  start_s: number;
  end_s: number;
  person: string;
  lines: string[];
}

interface Token {
  text: string;
  start_s: number;
  end_s: number;
}

/** Split segments into cues in order of time, each of one speaker. `label` returns a prefix for the first cue of a segment. */
export function buildCues(segments: readonly Segment[], label: (person: string) => string = () => ""): Cue[] {
  const marked = (segment: Segment) => `${label(segment.person)} ${isDoubtful(segment) ? DOUBTFUL_MARK : ""}`;
  const cues = segments.flatMap((segment) => buildSegmentCues(segment, marked(segment))).sort((a, b) => a.start_s - b.start_s);
  const result: Cue[] = [];
  for (const cue of cues) {
    const previous = result.at(-1);
    let next = cue;
    if (previous && cue.start_s < previous.end_s) {
      const boundaryS = Math.max(cue.start_s, previous.start_s + Math.min(previous.end_s - previous.start_s, MIN_CUE_S));
      previous.end_s = boundaryS;
      next = { ...cue, start_s: boundaryS, end_s: Math.max(cue.end_s, boundaryS + Math.min(cue.end_s - cue.start_s, MIN_CUE_S)) };
    }
    result.push(next);
  }
  return result.filter((cue) => cue.end_s > cue.start_s);
}

function buildSegmentCues(segment: Segment, label: string): Cue[] {
  const cues: Cue[] = [];
  let group: Token[] = [];
  const close = () => {
    const first = group[0];
    const last = group.at(-1);
    if (first && last) {
      const lines = wrapBalanced(group.map((token) => token.text));
      cues.push({ start_s: first.start_s, end_s: Math.max(last.end_s, first.start_s + 0.001), person: segment.person, lines });
    }
    group = [];
  };
  const labels = label.split(" ").filter(Boolean).map((text) => ({ text, start_s: segment.start_s, end_s: segment.start_s }));
  for (const token of [...labels, ...tokenize(segment)]) {
    const candidate = [...group, token];
    const fits = wrapGreedily(candidate.map((each) => each.text)).length <= 2 && token.end_s - candidate[0]!.start_s <= MAX_CUE_S;
    if (group.length && !fits) close();
    group.push(token);
  }
  close();
  return cues;
}

function tokenize(segment: Segment): Token[] {
  const tokens: Token[] = [];
  for (const word of segment.words) {
    const letters = Array.from(sanitize(word.text));
    for (let at = 0; at < letters.length; at += MAX_LINE_CHARS) {
      const piece = letters.slice(at, at + MAX_LINE_CHARS);
      const time = (count: number) => word.start_s + ((word.end_s - word.start_s) * count) / letters.length;
      tokens.push({ text: piece.join(""), start_s: time(at), end_s: time(at + piece.length) });
    }
  }
  return tokens;
}

function wrapGreedily(texts: string[]): string[] {
  const lines: string[] = [];
  for (const text of texts) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + text.length <= MAX_LINE_CHARS) lines[lines.length - 1] = `${last} ${text}`;
    else lines.push(text);
  }
  return lines;
}

function wrapBalanced(texts: string[]): string[] {
  const line = texts.join(" ");
  if (line.length <= MAX_LINE_CHARS) return [line];
  let best = wrapGreedily(texts);
  for (let cut = 1; cut < texts.length; cut++) {
    const lines = [texts.slice(0, cut).join(" "), texts.slice(cut).join(" ")];
    const longest = (each: string[]) => Math.max(...each.map((line) => line.length));
    if (longest(lines) < longest(best)) best = lines;
  }
  return best;
}

// ---------------------------------------------------------------------------------------------------------- formats

export function toWebVtt(transcript: Transcript): string {
  const blocks = buildCues(transcript.segments).map((cue, index) => {
    const name = escapeVtt(speakerName(transcript, cue.person)).replace(/-$/, "&#45;");
    return `\n${index + 1}\n${formatTimestamp(cue.start_s, ".")} --> ${formatTimestamp(cue.end_s, ".")}\n<v ${name}>${cue.lines.map(escapeVtt).join("\n")}\n`;
  });
  return `WEBVTT\n${blocks.join("")}`;
}

export function toSrt(transcript: Transcript): string {
  const hasSeveralSpeakers = new Set(transcript.segments.map((segment) => segment.person)).size > 1;
  const label = (person: string) => (hasSeveralSpeakers ? `${speakerName(transcript, person).slice(0, 20).trim()}:` : "");
  return buildCues(transcript.segments, label)
    .map((cue, index) => `${index + 1}\n${formatTimestamp(cue.start_s, ",")} --> ${formatTimestamp(cue.end_s, ",")}\n${cue.lines.map(escapeSrt).join("\n")}\n`)
    .join("\n");
}

export function toTtml(transcript: Transcript, language: string): string {
  const cues = buildCues(transcript.segments);
  const speakers = [...new Set(cues.map((cue) => cue.person))];
  const agents = speakers.map((person, index) => `<ttm:agent xml:id="agent-${index + 1}" type="person"><ttm:name type="full">${escapeXml(speakerName(transcript, person))}</ttm:name></ttm:agent>`);
  const lines = cues.map(
    (cue) => `<p begin="${formatTimestamp(cue.start_s, ".")}" end="${formatTimestamp(cue.end_s, ".")}" ttm:agent="agent-${speakers.indexOf(cue.person) + 1}">${cue.lines.map(escapeXml).join("<br/>")}</p>`,
  );
  return (
    `<?xml version="1.0" encoding="UTF-8"?>\n<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttm="http://www.w3.org/ns/ttml#metadata" xml:lang="${escapeXml(language)}">\n` +
    `<head><metadata>${agents.join("")}</metadata></head>\n<body><div>\n${lines.join("\n")}\n</div></body>\n</tt>\n`
  );
}

export function toText(transcript: Transcript): string {
  const hasSeveralSpeakers = new Set(transcript.segments.map((segment) => segment.person)).size > 1;
  const mark = (segment: Segment) => (isDoubtful(segment) ? `${DOUBTFUL_MARK} ` : "");
  return transcript.segments.map((segment) => `${hasSeveralSpeakers ? `${speakerName(transcript, segment.person)}: ` : ""}${mark(segment)}${sanitize(segment.text)}\n`).join("");
}

/** Return the name of a speaker, by default "Person 1" for "person-1". */
export function speakerName(transcript: Pick<Transcript, "names">, person: string): string {
  return transcript.names[person] ?? person.replace(/^person-(\d+)$/, "Person $1");
}

function formatTimestamp(timeS: number, separator: string): string {
  const total = Math.max(0, Math.round(timeS * 1000));
  const pad = (value: number, digits: number) => String(value).padStart(digits, "0");
  return `${pad(Math.floor(total / 3_600_000), 2)}:${pad(Math.floor(total / 60_000) % 60, 2)}:${pad(Math.floor(total / 1000) % 60, 2)}${separator}${pad(total % 1000, 3)}`;
}

function escapeVtt(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function escapeSrt(text: string): string {
  // SubRip has no escapes: characters that players interpret as tags, styles or timing arrows are replaced by similar ones.
  return text.replace(/</g, "‹").replace(/>/g, "›").replace(/\{/g, "(").replace(/\}/g, ")");
}

function escapeXml(text: string): string {
  return escapeVtt(text).replace(/"/g, "&quot;");
}
