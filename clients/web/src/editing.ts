/** Corrections of a transcript as pure functions that return a new transcript, with undo history and search. */

import type { Hypothesis, Segment, Transcript, Word } from "./result";

export interface WordPosition {
  segmentId: string;
  index: number;
}

/** Collapse whitespace and control characters to single spaces. */
export function sanitize(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").replace(/\s+/g, " ").trim();
}

/**
 * Replace a word by zero or more words, which share its time by length and get confidence 1. Removing the last word of a
 * segment removes the segment.
 */
export function replaceWord(transcript: Transcript, position: WordPosition, text: string): Transcript {
  return updateSegment(transcript, position.segmentId, (segment) => {
    const old = segment.words[position.index];
    if (!old || old.text === sanitize(text)) return segment;
    const words = [...segment.words];
    words.splice(position.index, 1, ...splitWord(old, sanitize(text)));
    return setWords(segment, words);
  });
}

/** Replace a word by one of its alternatives; the word itself becomes an alternative. */
export function useAlternative(transcript: Transcript, position: WordPosition, alternative: Hypothesis): Transcript {
  return updateSegment(transcript, position.segmentId, (segment) => {
    const old = segment.words[position.index];
    if (!old) return segment;
    const { alternatives, ...hypothesis } = old;
    const rest = alternatives.filter((other) => other !== alternative);
    const word: Word = { ...old, text: alternative.text, source: "correction", confidence: 1, alternatives: [hypothesis, ...rest] };
    return setWords(segment, segment.words.map((each, index) => (index === position.index ? word : each)));
  });
}

/** Set a speaker's name; an empty name restores the default. */
export function renameSpeaker(transcript: Transcript, person: string, name: string): Transcript {
  const names = { ...transcript.names };
  const newName = sanitize(name).slice(0, 100);
  if (newName && newName !== person) names[person] = newName;
  else delete names[person];
  return { ...transcript, names };
}

/** Assign a segment to another speaker. */
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

/** Undo history: the current transcript with earlier and undone ones. */
export interface History {
  past: Transcript[];
  present: Transcript;
  future: Transcript[];
}

export function createHistory(present: Transcript): History {
  return { past: [], present, future: [] };
}

/** Record a change; discards the undone ones. */
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

/** A search match: the position of its first word, and its length in words. */
export interface Match extends WordPosition {
  length: number;
}

/** Find consecutive words, ignoring case, accents and punctuation; the last word may be a prefix. */
export function findMatches(segments: readonly Segment[], query: string): Match[] {
  const terms = foldText(query).split(" ").filter(Boolean);
  if (!terms.length) return [];
  const matches: Match[] = [];
  for (const segment of segments) {
    const texts = segment.words.map((word) => foldText(word.text));
    for (let index = 0; index + terms.length <= texts.length; index++) {
      const isMatch = terms.every((term, offset) => {
        const text = texts[index + offset]!;
        if (terms.length === 1) return text.includes(term);
        return offset === terms.length - 1 ? text.startsWith(term) : text === term;
      });
      if (isMatch) matches.push({ segmentId: segment.id, index, length: terms.length });
    }
  }
  return matches;
}

function foldText(text: string): string {
  return text.normalize("NFKD").replace(/[\p{M}\p{P}]/gu, "").toLowerCase().replace(/\s+/g, " ").trim();
}
