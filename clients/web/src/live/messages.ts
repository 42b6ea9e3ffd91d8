/** Messages of `/v1/live`, version 1; see `docs/live.md`. */

import type { Box } from "../result";

export const SUBPROTOCOL = "gorggle.live.v1";

export type Modality = "av" | "video" | "audio";

export interface StartMessage {
  type: "start";
  media: "webm" | "pcm";
  modality: Modality;
  interim: boolean;
  face_boxes: boolean;
  token?: string;
}

export interface LiveWord {
  text: string;
  start_s: number;
  end_s: number;
  confidence: number;
  /** What the word was recognized from; empty or absent if the server does not say. */
  source?: "lips" | "audio" | "both" | "";
}

export interface LiveSegment {
  segment_id: string;
  revision: number;
  is_final: boolean;
  speaker: string;
  modality: Modality;
  start_s: number;
  end_s: number;
  text: string;
  confidence: number;
  /** Read from the lips alone by a model with a closed vocabulary: probably wrong. */
  doubtful: boolean;
  words: LiveWord[];
  face_boxes: Box[];
}

export interface Limits {
  message_bytes: number;
  unacknowledged_bytes: number;
  duration_s: number;
  idle_s: number;
}

export type ServerMessage = { event?: number } & (
  | { type: "ready"; version: number; session: string; key: string; received: number; limits: Limits }
  | { type: "ack"; received: number }
  | { type: "pong" }
  | { type: "started"; model: string; request_id: string }
  | { type: "media"; width_px: number; height_px: number; video_codec: string; audio_codec: string }
  | ({ type: "segment" } & LiveSegment)
  | { type: "activity"; kind: "speech_begin" | "speech_end"; time_s: number; speaker: string }
  | { type: "progress"; received_s: number; processed_s: number; faces: number }
  | { type: "warning"; kind: string; message: string }
  | { type: "recovering"; reason: string }
  | { type: "recovered" }
  | { type: "finished"; duration_s: number; segments: number; faces: number }
  | { type: "error"; code: string; message: string; retry_after_s?: number | null }
);
