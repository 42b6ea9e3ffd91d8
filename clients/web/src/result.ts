/** The result of a job, as defined by `fusion/result.schema.json`. Times are in seconds, confidences from 0 to 1. */

/** "correction": entered by a user. */
export type Source = "lips" | "audio" | "both" | "correction";

export interface Hypothesis {
  text: string;
  start_s: number;
  end_s: number;
  confidence: number;
  source: Source;
}

export interface Word extends Hypothesis {
  alternatives: Hypothesis[];
  is_doubtful?: boolean;
}

export interface Segment {
  id: string;
  person: string;
  start_s: number;
  end_s: number;
  text: string;
  confidence: number;
  words: Word[];
}

export interface Box {
  time_s: number;
  left: number;
  top: number;
  width: number;
  height: number;
}

export interface SourceReport {
  status: "used" | "partial" | "failed" | "absent";
  engine: string;
  failures: { reason: string; start_s?: number; end_s?: number }[];
}

export interface Result {
  schema_version: string;
  media: { name: string; duration_s: number; width_px: number; height_px: number; frame_rate_hz: number; video_codec: string; audio_codec: string };
  language: string;
  model: { name: string; licence: { name: string; summary: string; url: string }; has_open_vocabulary: boolean } | null;
  is_degraded: boolean;
  sources: Record<"lips" | "audio" | "faces", SourceReport>;
  noise: { start_s: number; end_s: number; snr_db: number }[];
  people: { name: string; first_s: number; voices: string[]; faces: string[] }[];
  segments: Segment[];
  faces: { person: string; boxes: Box[] }[];
  omissions: (Hypothesis & { person: string; reason: string })[];
}

/** The editable part of a result: segments and speaker names. */
export interface Transcript {
  segments: Segment[];
  /** Maps "person-1" to "Ada". */
  names: Record<string, string>;
}

export const SPEAKER_COLORS = 8;

/** Return the colour index of a speaker, by number, so that it does not depend on the order of appearance. */
export function speakerColor(person: string): number {
  const number = Number(/(\d+)$/.exec(person)?.[1] ?? 1);
  return (number - 1) % SPEAKER_COLORS;
}

/** Return whether a segment has words that are probably wrong. Corrected words are not. */
export function isDoubtful(segment: Segment): boolean {
  return segment.words.some((word) => word.source !== "correction" && word.is_doubtful);
}

/** Return the segments spoken at a time. */
export function segmentsAt(segments: readonly Segment[], timeS: number): Segment[] {
  return segments.filter((segment) => segment.start_s <= timeS && timeS < segment.end_s);
}

/** Return the index of the last word that has begun by a time; -1 before the first word. */
export function wordIndexAt(segment: Segment, timeS: number): number {
  let result = -1;
  for (const [index, word] of segment.words.entries()) {
    if (word.start_s > timeS) break;
    result = index;
  }
  return result;
}

// A face is considered absent between boxes further apart than this.
const MAX_BOX_GAP_S = 0.8;

/** Interpolate a face's box at a time; null if the face is absent. `boxes` are in order of time. */
export function boxAt(boxes: readonly Box[], timeS: number): Box | null {
  let low = 0;
  let high = boxes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (boxes[middle]!.time_s <= timeS) low = middle + 1;
    else high = middle;
  }
  const before = boxes[low - 1];
  const after = boxes[low];
  if (before && after && after.time_s - before.time_s <= MAX_BOX_GAP_S) {
    const fraction = (timeS - before.time_s) / (after.time_s - before.time_s);
    const interpolate = (a: number, b: number) => a + (b - a) * fraction;
    return {
      time_s: timeS,
      left: interpolate(before.left, after.left),
      top: interpolate(before.top, after.top),
      width: interpolate(before.width, after.width),
      height: interpolate(before.height, after.height),
    };
  }
  if (before && timeS - before.time_s <= MAX_BOX_GAP_S / 2) return before;
  if (after && after.time_s - timeS <= MAX_BOX_GAP_S / 2) return after;
  return null;
}
