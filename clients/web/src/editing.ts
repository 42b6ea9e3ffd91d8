/** Corrections of a transcript: pure functions, each gives a new transcript, and the history that undoes them. */

import type { Hypothesis, Segment, Transcript, Word } from "./result";

export interface WordPosition {
  segmentId: string;
  index: number;
}

/** Text as one line, without control characters. */
export function sanitize(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").replace(/\s+/g, " ").trim();
}

/**
 * Put other words in the place of one. Several words share its time by length; none takes the word away, and with the
 * last word its segment. What a person wrote is certain.
 */
export function replaceWord(transcript: Transcript, place: WordPosition, text: string): Transcript {
  return updateSegment(transcript, place.segmentId, (segment) => {
    const old = segment.words[place.index];
    if (!old || old.text === sanitize(text)) return segment;
    const words = [...segment.words];
    words.splice(place.index, 1, ...splitWord(old, sanitize(text)));
    return setWords(segment, words);
  });
}

/** Take one of a word's other readings; the word itself becomes the alternative. */
export function useAlternative(transcript: Transcript, place: WordPosition, alternative: Hypothesis): Transcript {
  return updateSegment(transcript, place.segmentId, (segment) => {
    const old = segment.words[place.index];
    if (!old) return segment;
    const { alternatives, ...reading } = old;
    const rest = alternatives.filter((other) => other !== alternative);
    const word: Word = { ...old, text: alternative.text, source: "correction", confidence: 1, alternatives: [reading, ...rest] };
    return setWords(segment, segment.words.map((each, index) => (index === place.index ? word : each)));
  });
}

/** Give a person a name; an empty one takes it back. */
export function renameSpeaker(transcript: Transcript, person: string, name: string): Transcript {
  const names = { ...transcript.names };
  const shown = sanitize(name).slice(0, 100);
  if (shown && shown !== person) names[person] = shown;
  else delete names[person];
  return { ...transcript, names };
}

/** Say that somebody else spoke a segment. */
export function setSpeaker(transcript: Transcript, segmentId: string, person: string): Transcript {
  return updateSegment(transcript, segmentId, (segment) => ({ ...segment, person }));
}

function updateSegment(transcript: Transcript, segmentId: string, change: (segment: Segment) => Segment): Transcript {
  let isChanged = false;
  const segments: Segment[] = [];
  for (const segment of transcript.segments) {
    const next = segment.id === segmentId ? change(segment) : segment;
    isChanged ||= next !== segment;
    if (next.words.length) segments.push(next);
  }
  return isChanged ? { ...transcript, segments } : transcript;
}

function setWords(segment: Segment, words: Word[]): Segment {
  const confidence = words.length ? words.reduce((sum, word) => sum + word.confidence, 0) / words.length : 0;
  return { ...segment, words, text: words.map((word) => word.text).join(" "), confidence: Math.round(confidence * 1e4) / 1e4 };
}

function splitWord(old: Word, text: string): Word[] {
  const texts = text.split(" ").filter(Boolean);
  const total = texts.reduce((sum, each) => sum + each.length, 0);
  let characters = 0;
  return texts.map((each) => {
    const at = (letters: number) => Math.round((old.start_s + ((old.end_s - old.start_s) * letters) / total) * 1000) / 1000;
    const start_s = at(characters);
    characters += each.length;
    return { text: each, start_s, end_s: at(characters), confidence: 1, source: "correction" as const, alternatives: texts.length === 1 ? old.alternatives : [] };
  });
}

// ---------------------------------------------------------------------------------------------------------- history

const MAX_STEPS = 200;

/** A transcript with what was before and what was undone. */
export interface History {
  past: Transcript[];
  present: Transcript;
  future: Transcript[];
}

export function createHistory(present: Transcript): History {
  return { past: [], present, future: [] };
}

/** A change; what was undone before it is gone. */
export function push(history: History, next: Transcript): History {
  if (next === history.present) return history;
  return { past: [...history.past, history.present].slice(-MAX_STEPS), present: next, future: [] };
}

export function undo(history: History): History {
  const before = history.past.at(-1);
  if (!before) return history;
  return { past: history.past.slice(0, -1), present: before, future: [history.present, ...history.future] };
}

export function redo(history: History): History {
  const [next, ...future] = history.future;
  if (!next) return history;
  return { past: [...history.past, history.present], present: next, future };
}

// ----------------------------------------------------------------------------------------------------------- search

/** Where each match begins: a word's place and how many words it spans. */
export interface Match extends WordPosition {
  length: number;
}

/** Find words in order, without regard to case and marks; the last one may be unfinished. */
export function findMatches(segments: readonly Segment[], query: string): Match[] {
  const sought = foldText(query).split(" ").filter(Boolean);
  if (!sought.length) return [];
  const found: Match[] = [];
  for (const segment of segments) {
    const texts = segment.words.map((word) => foldText(word.text));
    for (let index = 0; index + sought.length <= texts.length; index++) {
      const fits = sought.every((part, offset) => {
        const text = texts[index + offset]!;
        if (sought.length === 1) return text.includes(part);
        return offset === sought.length - 1 ? text.startsWith(part) : text === part;
      });
      if (fits) found.push({ segmentId: segment.id, index, length: sought.length });
    }
  }
  return found;
}

function foldText(text: string): string {
  return text.normalize("NFKD").replace(/[\p{M}\p{P}]/gu, "").toLowerCase().replace(/\s+/g, " ").trim();
}
