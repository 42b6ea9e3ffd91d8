/** The result of a job, as `lambdas/fusion/result.schema.json` describes it; times are seconds, confidences 0 to 1. */

/** "correction": a person wrote it. */
export type Origin = "lips" | "audio" | "both" | "correction";

export interface Hypothesis {
  text: string;
  start_s: number;
  end_s: number;
  confidence: number;
  source: Origin;
}

export interface Word extends Hypothesis {
  alternatives: Hypothesis[];
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
  model: { name: string; licence: { name: string; summary: string; url: string } } | null;
  is_degraded: boolean;
  sources: Record<"lips" | "audio" | "faces", SourceReport>;
  noise: { start_s: number; end_s: number; snr_db: number }[];
  people: { name: string; first_s: number; voices: string[]; faces: string[] }[];
  segments: Segment[];
  faces: { person: string; boxes: Box[] }[];
  omissions: (Hypothesis & { person: string; reason: string })[];
}

/** What the page edits: the segments, and the names that people were given. */
export interface Transcript {
  segments: Segment[];
  /** From "person-1" to "Ada". */
  names: Record<string, string>;
}

export const SPEAKER_COLORS = 8;

/** Which of the colours is a person's: by number, so that it never changes with the order of appearance. */
export function speakerColor(person: string): number {
  const number = Number(/(\d+)$/.exec(person)?.[1] ?? 1);
  return (number - 1) % SPEAKER_COLORS;
}

/** The segments that are spoken at a time. */
export function segmentsAt(segments: readonly Segment[], timeS: number): Segment[] {
  return segments.filter((segment) => segment.start_s <= timeS && timeS < segment.end_s);
}

/** The word that is spoken at a time, or was last within its segment; -1 before the first. */
export function wordIndexAt(segment: Segment, timeS: number): number {
  let found = -1;
  for (const [index, word] of segment.words.entries()) {
    if (word.start_s > timeS) break;
    found = index;
  }
  return found;
}

// Between two looks further apart than this a face is taken as gone.
const MAX_BOX_GAP_S = 0.8;

/** Where a face is at a time, between the two nearest looks; null where it is not seen. `boxes` are in order of time. */
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
    const share = (timeS - before.time_s) / (after.time_s - before.time_s);
    const between = (a: number, b: number) => a + (b - a) * share;
    return {
      time_s: timeS,
      left: between(before.left, after.left),
      top: between(before.top, after.top),
      width: between(before.width, after.width),
      height: between(before.height, after.height),
    };
  }
  if (before && timeS - before.time_s <= MAX_BOX_GAP_S / 2) return before;
  if (after && after.time_s - timeS <= MAX_BOX_GAP_S / 2) return after;
  return null;
}
