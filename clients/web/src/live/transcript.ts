/** The transcript of a live session: pure functions from messages to a transcript, and from a transcript to a result. */

import type { Box, Source, Result, Segment } from "../result";
import type { LiveSegment, LiveWord, Modality } from "./messages";

export interface LiveTranscript {
  final: LiveSegment[];
  interim: LiveSegment[];
  /** Speakers of final segments in order of appearance: the first is person 1. The speaker of an interim segment may still change. */
  speakers: string[];
}

export const EMPTY_TRANSCRIPT: LiveTranscript = { final: [], interim: [], speakers: [] };

/** The speaker of segments without a face. */
export const VOICE_SPEAKER = "voice";

/** Add a segment; interim revisions are replaced until the final one arrives. */
export function addSegment(transcript: LiveTranscript, segment: LiveSegment): LiveTranscript {
  const isSame = (other: LiveSegment) => other.segment_id === segment.segment_id;
  if (transcript.final.some(isSame)) return transcript;
  const interim = transcript.interim.filter((other) => !isSame(other));
  if (!segment.is_final) return { ...transcript, interim: [...interim, segment].sort(compareStart) };
  if (!segment.text) return { ...transcript, interim };
  const speakers = transcript.speakers.includes(segment.speaker) ? transcript.speakers : [...transcript.speakers, segment.speaker];
  return { final: [...transcript.final, segment].sort(compareStart), interim, speakers };
}

function compareStart(a: LiveSegment, b: LiveSegment): number {
  return a.start_s - b.start_s || a.end_s - b.end_s;
}

const SOURCES: Record<Modality, Source> = { av: "both", video: "lips", audio: "audio" };

/** Return a speaker's ID in results: "person-2" is the second to appear. */
export function speakerId(transcript: LiveTranscript, speaker: string): string {
  const all = [...new Set([...transcript.speakers, ...transcript.interim.map((segment) => segment.speaker)])];
  const index = all.indexOf(speaker);
  return `person-${(index < 0 ? all.length : index) + 1}`;
}

/** Name the speaker without a face `voice`, if there are others. */
export function speakerNames(transcript: LiveTranscript, voice: string): Record<string, string> {
  return transcript.speakers.length > 1 && transcript.speakers.includes(VOICE_SPEAKER) ? { [speakerId(transcript, VOICE_SPEAKER)]: voice } : {};
}

export interface SessionInfo {
  name: string;
  durationS: number;
  widthPx: number;
  heightPx: number;
  model: string;
  modality: Modality;
}

/** Convert a session's transcript to a result, as a job returns it. */
export function toResult(transcript: LiveTranscript, info: SessionInfo): Result {
  const segments = transcript.final.map((live, index) => toSegment(live, index, speakerId(transcript, live.speaker))).filter((segment) => segment.words.length);
  const people = [...new Set(segments.map((segment) => segment.person))];
  const report = (isUsed: boolean) => ({ status: isUsed ? ("used" as const) : ("absent" as const), engine: isUsed ? info.model : "", failures: [] });
  return {
    schema_version: "1.3",
    media: { name: info.name, duration_s: info.durationS, width_px: info.widthPx, height_px: info.heightPx, frame_rate_hz: 0, video_codec: "", audio_codec: "" },
    language: "",
    // The live API does not send the model's licence.
    model: null,
    is_degraded: false,
    sources: { lips: report(info.modality !== "audio"), audio: report(info.modality !== "video"), faces: report(info.modality !== "audio") },
    noise: [],
    people: people.map((name) => ({ name, first_s: Math.min(...segments.filter((segment) => segment.person === name).map((segment) => segment.start_s)), voices: [], faces: [] })),
    segments,
    faces: people.map((person) => ({ person, boxes: collectBoxes(transcript, person) })).filter((face) => face.boxes.length),
    omissions: [],
  };
}

function toSegment(live: LiveSegment, index: number, person: string): Segment {
  const source = SOURCES[live.modality];
  const words: LiveWord[] = live.words.length ? live.words : [{ text: live.text, start_s: live.start_s, end_s: live.end_s, confidence: live.confidence }];
  return {
    id: `segment-${index + 1}`,
    person,
    start_s: live.start_s,
    end_s: live.end_s,
    text: live.text,
    confidence: live.confidence,
    words: words.map((word) => ({ ...word, source: word.source || source, alternatives: [], ...(live.doubtful ? { is_doubtful: true } : {}) })),
  };
}

function collectBoxes(transcript: LiveTranscript, person: string): Box[] {
  return transcript.final.filter((segment) => speakerId(transcript, segment.speaker) === person).flatMap((segment) => segment.face_boxes);
}
