/** What a live session has said so far: pure functions from messages to lines, and from lines to a result. */

import type { Box, Origin, Result, Segment } from "../result";
import type { LiveSegment, Modality } from "./messages";

export interface LiveTranscript {
  final: LiveSegment[];
  interim: LiveSegment[];
  /** Everybody whose words stand, in order of appearance: who is first is person 1. What may still change may be another's. */
  speakers: string[];
}

export const EMPTY_TRANSCRIPT: LiveTranscript = { final: [], interim: [], speakers: [] };

/** Who is heard and not seen. */
export const VOICE = "voice";

/** Take in a segment: an interim one replaces the one before, a final one stands. */
export function addSegment(lines: LiveTranscript, segment: LiveSegment): LiveTranscript {
  const isSame = (other: LiveSegment) => other.segment_id === segment.segment_id;
  if (lines.final.some(isSame)) return lines;
  const interim = lines.interim.filter((other) => !isSame(other));
  if (!segment.is_final) return { ...lines, interim: [...interim, segment].sort(byStart) };
  if (!segment.text) return { ...lines, interim };
  const speakers = lines.speakers.includes(segment.speaker) ? lines.speakers : [...lines.speakers, segment.speaker];
  return { final: [...lines.final, segment].sort(byStart), interim, speakers };
}

function byStart(a: LiveSegment, b: LiveSegment): number {
  return a.start_s - b.start_s || a.end_s - b.end_s;
}

const ORIGINS: Record<Modality, Origin> = { av: "both", video: "lips", audio: "audio" };

/** A speaker as a result calls people: "person-2" is who appeared second. */
export function speakerId(lines: LiveTranscript, speaker: string): string {
  const all = [...new Set([...lines.speakers, ...lines.interim.map((line) => line.speaker)])];
  const index = all.indexOf(speaker);
  return `person-${(index < 0 ? all.length : index) + 1}`;
}

/** A voice without a face has no number in people's eyes. */
export function speakerNames(lines: LiveTranscript, voice: string): Record<string, string> {
  return lines.speakers.length > 1 && lines.speakers.includes(VOICE) ? { [speakerId(lines, VOICE)]: voice } : {};
}

export interface SessionInfo {
  name: string;
  durationS: number;
  widthPx: number;
  heightPx: number;
  model: string;
  modality: Modality;
}

/** A session as a result, as a job would give it. */
export function toResult(lines: LiveTranscript, about: SessionInfo): Result {
  const segments = lines.final.map((live, index) => toSegment(live, index, speakerId(lines, live.speaker))).filter((segment) => segment.words.length);
  const people = [...new Set(segments.map((segment) => segment.person))];
  const status = (is: boolean) => ({ status: is ? ("used" as const) : ("absent" as const), engine: is ? about.model : "", failures: [] });
  return {
    schema_version: "1.0",
    media: { name: about.name, duration_s: about.durationS, width_px: about.widthPx, height_px: about.heightPx, frame_rate_hz: 0, video_codec: "", audio_codec: "" },
    language: "",
    // What its licence permits, the list of models says: it does not come with the words.
    model: null,
    is_degraded: false,
    sources: { lips: status(about.modality !== "audio"), audio: status(about.modality !== "video"), faces: status(about.modality !== "audio") },
    noise: [],
    people: people.map((name) => ({ name, first_s: Math.min(...segments.filter((segment) => segment.person === name).map((segment) => segment.start_s)), voices: [], faces: [] })),
    segments,
    faces: people.map((person) => ({ person, boxes: collectBoxes(lines, person) })).filter((face) => face.boxes.length),
    omissions: [],
  };
}

function toSegment(live: LiveSegment, index: number, person: string): Segment {
  const source = ORIGINS[live.modality];
  const words = live.words.length ? live.words : [{ text: live.text, start_s: live.start_s, end_s: live.end_s, confidence: live.confidence }];
  return {
    id: `segment-${index + 1}`,
    person,
    start_s: live.start_s,
    end_s: live.end_s,
    text: live.text,
    confidence: live.confidence,
    words: words.map((word) => ({ ...word, source, alternatives: [] })),
  };
}

function collectBoxes(lines: LiveTranscript, person: string): Box[] {
  return lines.final.filter((segment) => speakerId(lines, segment.speaker) === person).flatMap((segment) => segment.face_boxes);
}
