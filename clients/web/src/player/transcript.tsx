/** The transcript: follows the video, is searched, corrected and walked through with the keyboard. */

import type { ReadonlySignal } from "@preact/signals";
import { effect } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { speakerName } from "../captions";
import type { Match, WordPosition } from "../editing";
import { findMatches, setSpeaker, replaceWord } from "../editing";
import { Icon } from "../icons";
import { memo } from "../memo";
import type { Result, Segment, Transcript } from "../result";
import { speakerColor, wordIndexAt } from "../result";
import { strings } from "../i18n/en";
import { formatTime } from "../format";

const words = strings.transcript;
// Below, a word is shown as unsure.
export const LOW_CONFIDENCE = 0.5;

interface PanelProps {
  result: Result;
  transcript: Transcript;
  people: string[];
  now: ReadonlySignal<number>;
  chosen: WordPosition | null;
  onChoose: (place: WordPosition) => void;
  editing: WordPosition | null;
  onEdit: (place: WordPosition | null) => void;
  change: (next: (transcript: Transcript) => Transcript) => void;
  seek: (timeS: number, plays?: boolean) => void;
  hasMarks: boolean;
  onMarks: () => void;
  undo: (() => void) | null;
  redo: (() => void) | null;
  tools: ComponentChildren;
}

export function TranscriptPanel(props: PanelProps) {
  const { result, transcript, people, now, chosen, onChoose, editing, onEdit, change, seek } = props;
  const list = useRef<HTMLDivElement>(null);
  const [follows, setFollows] = useState(true);
  const [query, setQuery] = useState("");
  const [at, setAt] = useState(0);
  const found = useMemo(() => findMatches(transcript.segments, query), [transcript.segments, query]);
  const current = found.length ? found[Math.min(at, found.length - 1)]! : null;
  useSpokenWord(list, transcript.segments, now, follows && !editing);

  const show = (match: Match | undefined) => {
    if (!match) return;
    const button = wordButton(list.current, match);
    button?.scrollIntoView({ block: "center" });
    const word = transcript.segments.find((segment) => segment.id === match.segmentId)?.words[match.index];
    if (word) seek(word.start_s);
    onChoose(match);
  };
  const step = (by: number) => {
    if (!found.length) return;
    const next = (Math.min(at, found.length - 1) + by + found.length) % found.length;
    setAt(next);
    show(found[next]);
  };

  // One word can be reached with Tab; the arrows go on from there.
  const reachable = chosen && transcript.segments.some((segment) => segment.id === chosen.segmentId && segment.words[chosen.index]) ? chosen : firstWord(transcript.segments);
  const actions = useRef<WordActions>(null as unknown as WordActions);
  actions.current = {
    choose: (place) => {
      onChoose(place);
      const word = wordAt(transcript.segments, place);
      if (word) seek(word.start_s);
    },
    focus: onChoose,
    play: (place) => {
      const word = wordAt(transcript.segments, place);
      if (word) seek(word.start_s, true);
    },
    edit: onEdit,
    finish: (place, text) => {
      onEdit(null);
      if (text !== null) change((before) => replaceWord(before, place, text));
      requestAnimationFrame(() => (wordButton(list.current, place) ?? wordButton(list.current, { ...place, index: 0 }))?.focus());
    },
    move: (from, key) => {
      const next = neighbour(list.current, from, key);
      next?.focus();
      next?.scrollIntoView({ block: "nearest" });
    },
    speaker: (segmentId, person) => change((before) => setSpeaker(before, segmentId, person)),
    seek,
  };

  return (
    <section class="transcript card" aria-labelledby="transcript">
      <div class="transcript-head">
        <h2 id="transcript">{words.title}</h2>
        <div class="group">
          <button type="button" class="plain" aria-label={words.undo} title={words.undo} disabled={!props.undo} onClick={() => props.undo?.()}>
            <Icon name="undo" />
          </button>
          <button type="button" class="plain" aria-label={words.redo} title={words.redo} disabled={!props.redo} onClick={() => props.redo?.()}>
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
            if (at === 0 && current && !(chosen && chosen.segmentId === current.segmentId && chosen.index === current.index)) show(current);
            else step(1);
          }}
        >
          <Icon name="search" />
          <input
            id="search"
            type="search"
            aria-label={words.search}
            placeholder={words.search}
            value={query}
            onInput={(event) => {
              setQuery(event.currentTarget.value);
              setAt(0);
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
            {query.trim() && words.found(current ? Math.min(at, found.length - 1) + 1 : 0, found.length)}
          </span>
          <button type="button" class="plain" aria-label={words.previous} title={words.previous} disabled={!found.length} onClick={() => step(-1)}>
            <Icon name="up" />
          </button>
          <button type="button" class="plain" aria-label={words.next} title={words.next} disabled={!found.length} onClick={() => step(1)}>
            <Icon name="down" />
          </button>
        </form>
        <label class="check">
          <input type="checkbox" checked={follows} onChange={(event) => setFollows(event.currentTarget.checked)} />
          {words.follow}
        </label>
        <label class="check">
          <input type="checkbox" checked={props.hasMarks} onChange={props.onMarks} />
          {words.marks}
        </label>
      </div>
      {props.hasMarks && <Legend />}
      {/* Scrolled with the keyboard too: words inside take the focus. */}
      <div class={props.hasMarks ? "lines marks" : "lines"} ref={list}>
        {transcript.segments.map((segment) => (
          <Line
            key={segment.id}
            segment={segment}
            name={speakerName(transcript, segment.person)}
            names={transcript.names}
            people={people}
            matched={inSegment(found, segment.id)}
            current={current?.segmentId === segment.id ? current.index : -1}
            reachable={reachable?.segmentId === segment.id ? reachable.index : -1}
            chosen={chosen?.segmentId === segment.id ? chosen.index : -1}
            editing={editing?.segmentId === segment.id ? editing.index : -1}
            actions={actions}
          />
        ))}
        {!transcript.segments.length && <p class="quiet empty">{words.empty}</p>}
        {result.omissions.length > 0 && <Omissions result={result} />}
      </div>
    </section>
  );
}

interface WordActions {
  choose: (place: WordPosition) => void;
  focus: (place: WordPosition) => void;
  play: (place: WordPosition) => void;
  edit: (place: WordPosition) => void;
  /** null: without a change. */
  finish: (place: WordPosition, text: string | null) => void;
  move: (from: HTMLElement, key: string) => void;
  speaker: (segmentId: string, person: string) => void;
  seek: (timeS: number, plays?: boolean) => void;
}

interface LineProps {
  segment: Segment;
  name: string;
  names: Record<string, string>;
  people: string[];
  /** Matches in this line, as a text that is the same as long as they are: "2+1 5+1". */
  matched: string;
  current: number;
  reachable: number;
  chosen: number;
  editing: number;
  actions: { current: WordActions };
}

const Line = memo(function Line({ segment, name, names, people, matched, current, reachable, chosen, editing, actions }: LineProps) {
  const time = formatTime(segment.start_s);
  const marked = useMemo(() => markedWords(matched), [matched]);
  return (
    <div class={`line person-${speakerColor(segment.person)}`} data-segment={segment.id}>
      <div class="line-head">
        {people.length > 1 ? (
          <select class="who" aria-label={words.who(time)} value={segment.person} onChange={(event) => actions.current.speaker(segment.id, event.currentTarget.value)}>
            {people.map((person) => (
              <option key={person} value={person}>
                {speakerName({ names }, person)}
              </option>
            ))}
          </select>
        ) : (
          <span class="who" dir="auto">
            {name}
          </span>
        )}
        <button type="button" class="plain time" aria-label={words.playFrom(time)} onClick={() => actions.current.seek(segment.start_s, true)}>
          {time}
        </button>
      </div>
      <p dir="auto">
        {segment.words.map((word, index) => {
          const place = { segmentId: segment.id, index };
          if (index === editing) return <WordInput key={index} text={word.text} finish={(text) => actions.current.finish(place, text)} />;
          const classes = ["word", word.source];
          if (word.confidence < LOW_CONFIDENCE) classes.push("unsure");
          if (marked.has(index)) classes.push(index === current ? "match current" : "match");
          if (index === chosen) classes.push("chosen");
          return (
            <>
              <button
                key={index}
                type="button"
                class={classes.join(" ")}
                data-index={index}
                tabIndex={index === reachable ? 0 : -1}
                aria-describedby={index === chosen ? "word-details" : undefined}
                onClick={() => actions.current.choose(place)}
                onDblClick={() => actions.current.edit(place)}
                onFocus={() => actions.current.focus(place)}
                onKeyDown={(event) => onWordKey(event, place, actions.current)}
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

function onWordKey(event: KeyboardEvent, place: WordPosition, actions: WordActions): void {
  const key = event.key;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key.startsWith("Arrow") || key === "Home" || key === "End") actions.move(event.currentTarget as HTMLElement, key);
  else if (key === "Enter") actions.play(place);
  else if (key === "e" || key === "E" || key === "F2") actions.edit(place);
  else return;
  event.preventDefault();
}

function WordInput({ text, finish }: { text: string; finish: (text: string | null) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const isOver = useRef(false);
  const end = (value: string | null) => {
    if (isOver.current) return;
    isOver.current = true;
    finish(value);
  };
  // At once: after the next picture, the first letter of a quick typist would be lost.
  useLayoutEffect(() => {
    input.current?.focus();
    input.current?.select();
  }, []);
  return (
    <>
      <input
        ref={input}
        class="word-input"
        aria-label={words.correction(text)}
        defaultValue={text}
        size={Math.max(3, text.length + 2)}
        maxLength={200}
        autocomplete="off"
        onKeyDown={(event) => {
          if (event.key === "Enter") end(event.currentTarget.value);
          else if (event.key === "Escape") end(null);
          else return;
          event.preventDefault();
          event.stopPropagation();
        }}
        onBlur={(event) => end(event.currentTarget.value)}
      />{" "}
    </>
  );
}

function Legend() {
  return (
    <p class="legend marks quiet">
      {(["lips", "audio", "both"] as const).map((source) => (
        <span key={source}>
          <span class={`word ${source}`}>{words.legend[source]}</span>
        </span>
      ))}
      <span>
        <span class="word unsure">{words.legend.unsure}</span>
      </span>
    </p>
  );
}

function Omissions({ result }: { result: Result }) {
  return (
    <details class="unnoticed">
      <summary>{words.unnoticed}</summary>
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

/** Mark the word that is spoken, without drawing the list anew, and keep it in sight. */
function useSpokenWord(list: { current: HTMLElement | null }, segments: Segment[], now: ReadonlySignal<number>, follows: boolean): void {
  useEffect(() => {
    let shown: Element[] = [];
    let line = "";
    const stop = effect(() => {
      const timeS = now.value;
      const spoken = segments.filter((segment) => segment.start_s <= timeS && timeS < segment.end_s);
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
      if (follows && first !== line) scrollTo(list.current, first);
      line = first;
    });
    return () => {
      stop();
      for (const element of shown) element.classList.remove("spoken");
    };
  }, [segments, follows]);
}

/** Scroll the list, and the list only. */
function scrollTo(list: HTMLElement | null, segmentId: string): void {
  const line = list?.querySelector<HTMLElement>(`[data-segment="${segmentId}"]`);
  if (!list || !line) return;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  list.scrollTo({ top: line.offsetTop - list.offsetTop - list.clientHeight / 3, behavior: calm ? "instant" : "smooth" });
}

/** The word that an arrow leads to: aside in order of speech, up and down in the next line. */
function neighbour(list: HTMLElement | null, from: HTMLElement, key: string): HTMLElement | null {
  if (!list) return null;
  const all = [...list.querySelectorAll<HTMLElement>("button.word")];
  const at = all.indexOf(from);
  if (key === "ArrowRight") return all[at + 1] ?? null;
  if (key === "ArrowLeft") return all[at - 1] ?? null;
  if (key === "Home") return all[0] ?? null;
  if (key === "End") return all.at(-1) ?? null;
  const lines = [...list.querySelectorAll<HTMLElement>(".line")];
  const line = lines[lines.indexOf(from.closest<HTMLElement>(".line")!) + (key === "ArrowDown" ? 1 : -1)];
  return line?.querySelector<HTMLElement>("button.word") ?? null;
}

function wordButton(list: HTMLElement | null, place: WordPosition): HTMLElement | null {
  return list?.querySelector<HTMLElement>(`[data-segment="${CSS.escape(place.segmentId)}"] [data-index="${place.index}"]`) ?? null;
}

function wordAt(segments: Segment[], place: WordPosition) {
  return segments.find((segment) => segment.id === place.segmentId)?.words[place.index];
}

function firstWord(segments: Segment[]): WordPosition | null {
  const first = segments[0];
  return first ? { segmentId: first.id, index: 0 } : null;
}

function inSegment(found: Match[], segmentId: string): string {
  return found
    .filter((match) => match.segmentId === segmentId)
    .map((match) => `${match.index}+${match.length}`)
    .join(" ");
}

function markedWords(matched: string): Set<number> {
  const marked = new Set<number>();
  for (const match of matched.split(" ").filter(Boolean)) {
    const [index = 0, length = 0] = match.split("+").map(Number);
    for (let offset = 0; offset < length; offset++) marked.add(index + offset);
  }
  return marked;
}
