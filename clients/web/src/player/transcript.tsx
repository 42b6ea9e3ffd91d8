/** The transcript: follows the video; supports search, corrections and keyboard navigation. */

import type { ReadonlySignal } from "@preact/signals";
import { effect } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { speakerName } from "../captions";
import { DoubtfulMark } from "../components/doubtful-mark";
import type { Match, WordPosition } from "../editing";
import { findMatches, setSpeaker, replaceWord } from "../editing";
import { Icon } from "../icons";
import { memo } from "../memo";
import type { Result, Segment, Transcript } from "../result";
import { isDoubtful, segmentsAt, speakerColor, wordIndexAt } from "../result";
import { strings } from "../i18n/en";
import { formatTime } from "../format";

const texts = strings.transcript;
// Words below this confidence are marked.
export const LOW_CONFIDENCE = 0.5;

interface PanelProps {
  result: Result;
  transcript: Transcript;
  speakers: string[];
  now: ReadonlySignal<number>;
  selected: WordPosition | null;
  onSelect: (position: WordPosition) => void;
  editing: WordPosition | null;
  onEdit: (position: WordPosition | null) => void;
  change: (next: (transcript: Transcript) => Transcript) => void;
  seek: (timeS: number, andPlay?: boolean) => void;
  showsSources: boolean;
  onToggleSources: () => void;
  undo: (() => void) | null;
  redo: (() => void) | null;
  tools: ComponentChildren;
}

export function TranscriptPanel(props: PanelProps) {
  const { result, transcript, speakers, now, selected, onSelect, editing, onEdit, change, seek } = props;
  const list = useRef<HTMLDivElement>(null);
  const [follows, setFollows] = useState(true);
  const [query, setQuery] = useState("");
  const [matchIndex, setMatchIndex] = useState(0);
  const matches = useMemo(() => findMatches(transcript.segments, query), [transcript.segments, query]);
  const current = matches.length ? matches[Math.min(matchIndex, matches.length - 1)]! : null;
  useSpokenWordHighlight(list, transcript.segments, now, follows && !editing);

  const show = (match: Match | undefined) => {
    if (!match) return;
    const button = findWordButton(list.current, match);
    button?.scrollIntoView({ block: "center" });
    const word = wordAt(transcript.segments, match);
    if (word) seek(word.start_s);
    onSelect(match);
  };
  const step = (offset: number) => {
    if (!matches.length) return;
    const next = (Math.min(matchIndex, matches.length - 1) + offset + matches.length) % matches.length;
    setMatchIndex(next);
    show(matches[next]);
  };

  // Roving tabindex: one word is reachable with Tab, the others with the arrow keys.
  const reachable = selected && wordAt(transcript.segments, selected) ? selected : firstWord(transcript.segments);
  const actions = useRef<WordActions>(null as unknown as WordActions);
  actions.current = {
    select: (position) => {
      onSelect(position);
      const word = wordAt(transcript.segments, position);
      if (word) seek(word.start_s);
    },
    focus: onSelect,
    play: (position) => {
      const word = wordAt(transcript.segments, position);
      if (word) seek(word.start_s, true);
    },
    edit: onEdit,
    finish: (position, text) => {
      onEdit(null);
      if (text !== null) change((before) => replaceWord(before, position, text));
      requestAnimationFrame(() => (findWordButton(list.current, position) ?? findWordButton(list.current, { ...position, index: 0 }))?.focus());
    },
    move: (from, key) => {
      const next = adjacentWord(list.current, from, key);
      next?.focus();
      next?.scrollIntoView({ block: "nearest" });
    },
    speaker: (segmentId, person) => change((before) => setSpeaker(before, segmentId, person)),
    seek,
  };

  return (
    <section class="transcript card" aria-labelledby="transcript">
      <div class="transcript-head">
        <h2 id="transcript">{texts.title}</h2>
        <div class="group">
          <button type="button" class="plain" aria-label={texts.undo} title={texts.undo} disabled={!props.undo} onClick={() => props.undo?.()}>
            <Icon name="undo" />
          </button>
          <button type="button" class="plain" aria-label={texts.redo} title={texts.redo} disabled={!props.redo} onClick={() => props.redo?.()}>
            <Icon name="redo" />
          </button>
        </div>
        {props.tools}
      </div>
      <div class="transcript-tools">
        <form
          role="search"
          class="search"
          onSubmit={(event) => {
            event.preventDefault();
            if (matchIndex === 0 && current && !(selected && selected.segmentId === current.segmentId && selected.index === current.index)) show(current);
            else step(1);
          }}
        >
          <Icon name="search" />
          <input
            id="search"
            type="search"
            aria-label={texts.search}
            placeholder={texts.search}
            value={query}
            onInput={(event) => {
              setQuery(event.currentTarget.value);
              setMatchIndex(0);
            }}
            onKeyDown={(event) => {
              if (event.key === "Escape") setQuery("");
              if (event.key === "Enter" && event.shiftKey) {
                event.preventDefault();
                step(-1);
              }
            }}
          />
          <span class="quiet count" aria-live="polite">
            {query.trim() && texts.matches(current ? Math.min(matchIndex, matches.length - 1) + 1 : 0, matches.length)}
          </span>
          <button type="button" class="plain" aria-label={texts.previous} title={texts.previous} disabled={!matches.length} onClick={() => step(-1)}>
            <Icon name="up" />
          </button>
          <button type="button" class="plain" aria-label={texts.next} title={texts.next} disabled={!matches.length} onClick={() => step(1)}>
            <Icon name="down" />
          </button>
        </form>
        <label class="check">
          <input type="checkbox" checked={follows} onChange={(event) => setFollows(event.currentTarget.checked)} />
          {texts.follow}
        </label>
        <label class="check">
          <input type="checkbox" checked={props.showsSources} onChange={props.onToggleSources} />
          {texts.sourceMarks}
        </label>
      </div>
      {props.showsSources && <SourceLegend />}
      {/* Needs no tabindex: the words inside take the focus. */}
      <div class={props.showsSources ? "lines marks" : "lines"} ref={list}>
        {transcript.segments.map((segment) => (
          <Line
            key={segment.id}
            segment={segment}
            doubtful={isDoubtful(segment)}
            name={speakerName(transcript, segment.person)}
            names={transcript.names}
            speakers={speakers}
            matched={encodeMatches(matches, segment.id)}
            current={current?.segmentId === segment.id ? current.index : -1}
            reachable={reachable?.segmentId === segment.id ? reachable.index : -1}
            selected={selected?.segmentId === segment.id ? selected.index : -1}
            editing={editing?.segmentId === segment.id ? editing.index : -1}
            actions={actions}
          />
        ))}
        {!transcript.segments.length && <p class="quiet empty">{texts.empty}</p>}
        {result.omissions.length > 0 && <Omissions result={result} />}
      </div>
    </section>
  );
}

interface WordActions {
  select: (position: WordPosition) => void;
  focus: (position: WordPosition) => void;
  play: (position: WordPosition) => void;
  edit: (position: WordPosition) => void;
  /** End editing; null discards the change. */
  finish: (position: WordPosition, text: string | null) => void;
  move: (from: HTMLElement, key: string) => void;
  speaker: (segmentId: string, person: string) => void;
  seek: (timeS: number, andPlay?: boolean) => void;
}

interface LineProps {
  segment: Segment;
  doubtful: boolean;
  name: string;
  names: Record<string, string>;
  speakers: string[];
  /** The line's matches encoded as a string such as "2+1 5+1", so that the memoised line compares them by value. */
  matched: string;
  current: number;
  reachable: number;
  selected: number;
  editing: number;
  actions: { current: WordActions };
}

const Line = memo(function Line({ segment, doubtful, name, names, speakers, matched, current, reachable, selected, editing, actions }: LineProps) {
  const time = formatTime(segment.start_s);
  const marked = useMemo(() => decodeMatches(matched), [matched]);
  return (
    <div class={`line person-${speakerColor(segment.person)}`} data-segment={segment.id}>
      <div class="line-head">
        {speakers.length > 1 ? (
          <select class="speaker" aria-label={texts.speakerAt(time)} value={segment.person} onChange={(event) => actions.current.speaker(segment.id, event.currentTarget.value)}>
            {speakers.map((person) => (
              <option key={person} value={person}>
                {speakerName({ names }, person)}
              </option>
            ))}
          </select>
        ) : (
          <span class="speaker" dir="auto">
            {name}
          </span>
        )}
        <button type="button" class="plain time" aria-label={texts.playFrom(time)} onClick={() => actions.current.seek(segment.start_s, true)}>
          {time}
        </button>
      </div>
      <p dir="auto">
        {doubtful && <DoubtfulMark />}
        {segment.words.map((word, index) => {
          const position = { segmentId: segment.id, index };
          if (index === editing) return <WordInput key={index} text={word.text} finish={(text) => actions.current.finish(position, text)} />;
          const classes = ["word", word.source];
          if (word.confidence < LOW_CONFIDENCE) classes.push("low-confidence");
          if (marked.has(index)) classes.push(index === current ? "match current" : "match");
          if (index === selected) classes.push("selected");
          return (
            <>
              <button
                key={index}
                type="button"
                class={classes.join(" ")}
                data-index={index}
                tabIndex={index === reachable ? 0 : -1}
                aria-describedby={index === selected ? "word-details" : undefined}
                onClick={() => actions.current.select(position)}
                onDblClick={() => actions.current.edit(position)}
                onFocus={() => actions.current.focus(position)}
                onKeyDown={(event) => onWordKey(event, position, actions.current)}
              >
                {word.text}
              </button>{" "}
            </>
          );
        })}
      </p>
    </div>
  );
});

function onWordKey(event: KeyboardEvent, position: WordPosition, actions: WordActions): void {
  const key = event.key;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key.startsWith("Arrow") || key === "Home" || key === "End") actions.move(event.currentTarget as HTMLElement, key);
  else if (key === "Enter") actions.play(position);
  else if (key === "e" || key === "E" || key === "F2") actions.edit(position);
  else return;
  event.preventDefault();
}

function WordInput({ text, finish }: { text: string; finish: (text: string | null) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const isFinished = useRef(false);
  const finishOnce = (value: string | null) => {
    if (isFinished.current) return;
    isFinished.current = true;
    finish(value);
  };
  // Focus before the next frame, so that no key press is lost.
  useLayoutEffect(() => {
    input.current?.focus();
    input.current?.select();
  }, []);
  return (
    <>
      <input
        ref={input}
        class="word-input"
        aria-label={texts.correction(text)}
        defaultValue={text}
        size={Math.max(3, text.length + 2)}
        maxLength={200}
        autocomplete="off"
        onKeyDown={(event) => {
          if (event.key === "Enter") finishOnce(event.currentTarget.value);
          else if (event.key === "Escape") finishOnce(null);
          else return;
          event.preventDefault();
          event.stopPropagation();
        }}
        onBlur={(event) => finishOnce(event.currentTarget.value)}
      />{" "}
    </>
  );
}

function SourceLegend() {
  return (
    <p class="legend marks quiet">
      {(["lips", "audio", "both"] as const).map((source) => (
        <span key={source}>
          <span class={`word ${source}`}>{texts.legend[source]}</span>
        </span>
      ))}
      <span>
        <span class="word low-confidence">{texts.legend.lowConfidence}</span>
      </span>
    </p>
  );
}

function Omissions({ result }: { result: Result }) {
  return (
    <details class="omissions">
      <summary>{texts.omissions}</summary>
      <ul>
        {result.omissions.map((omission, index) => (
          <li key={index}>
            {formatTime(omission.start_s)} <q dir="auto">{omission.text}</q> ({strings.sources[omission.source]}): {omission.reason}
          </li>
        ))}
      </ul>
    </details>
  );
}

/** Highlight the spoken words by changing their classes directly, without rendering, and scroll to them. */
function useSpokenWordHighlight(list: { current: HTMLElement | null }, segments: Segment[], now: ReadonlySignal<number>, follows: boolean): void {
  useEffect(() => {
    let shown: Element[] = [];
    let line = "";
    const stop = effect(() => {
      const timeS = now.value;
      const spoken = segmentsAt(segments, timeS);
      const next: Element[] = [];
      for (const segment of spoken) {
        const index = wordIndexAt(segment, timeS);
        const element = list.current?.querySelector(`[data-segment="${segment.id}"] [data-index="${index}"]`);
        if (element) next.push(element);
      }
      for (const element of shown) if (!next.includes(element)) element.classList.remove("spoken");
      for (const element of next) element.classList.add("spoken");
      shown = next;
      const first = spoken[0]?.id ?? line;
      if (follows && first !== line) scrollToSegment(list.current, first);
      line = first;
    });
    return () => {
      stop();
      for (const element of shown) element.classList.remove("spoken");
    };
  }, [segments, follows]);
}

/** Scroll the list to a segment without scrolling the page. */
function scrollToSegment(list: HTMLElement | null, segmentId: string): void {
  const line = list?.querySelector<HTMLElement>(`[data-segment="${segmentId}"]`);
  if (!list || !line) return;
  const reducesMotion = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  list.scrollTo({ top: line.offsetTop - list.offsetTop - list.clientHeight / 3, behavior: reducesMotion ? "instant" : "smooth" });
}

/** Return the word that a key moves to: left and right in order of speech, up and down to the first word of a line. */
function adjacentWord(list: HTMLElement | null, from: HTMLElement, key: string): HTMLElement | null {
  if (!list) return null;
  const all = [...list.querySelectorAll<HTMLElement>("button.word")];
  const index = all.indexOf(from);
  if (key === "ArrowRight") return all[index + 1] ?? null;
  if (key === "ArrowLeft") return all[index - 1] ?? null;
  if (key === "Home") return all[0] ?? null;
  if (key === "End") return all.at(-1) ?? null;
  const lines = [...list.querySelectorAll<HTMLElement>(".line")];
  const line = lines[lines.indexOf(from.closest<HTMLElement>(".line")!) + (key === "ArrowDown" ? 1 : -1)];
  return line?.querySelector<HTMLElement>("button.word") ?? null;
}

function findWordButton(list: HTMLElement | null, position: WordPosition): HTMLElement | null {
  return list?.querySelector<HTMLElement>(`[data-segment="${CSS.escape(position.segmentId)}"] [data-index="${position.index}"]`) ?? null;
}

function wordAt(segments: Segment[], position: WordPosition) {
  return segments.find((segment) => segment.id === position.segmentId)?.words[position.index];
}

function firstWord(segments: Segment[]): WordPosition | null {
  const first = segments[0];
  return first ? { segmentId: first.id, index: 0 } : null;
}

function encodeMatches(matches: Match[], segmentId: string): string {
  return matches
    .filter((match) => match.segmentId === segmentId)
    .map((match) => `${match.index}+${match.length}`)
    .join(" ");
}

function decodeMatches(matched: string): Set<number> {
  const marked = new Set<number>();
  for (const match of matched.split(" ").filter(Boolean)) {
    const [index = 0, length = 0] = match.split("+").map(Number);
    for (let offset = 0; offset < length; offset++) marked.add(index + offset);
  }
  return marked;
}
