/** The video with its captions, face boxes and controls. */

import type { ReadonlySignal } from "@preact/signals";
import type { Ref, RefObject } from "preact";
import { useEffect, useImperativeHandle, useRef, useState } from "preact/hooks";
import type { Cue } from "../captions";
import { speakerName } from "../captions";
import { Icon } from "../icons";
import type { Box, Result, Transcript } from "../result";
import { boxAt, speakerColor, segmentsAt } from "../result";
import { loadItem, saveItem } from "../store";
import { strings } from "../i18n/en";
import { formatTime } from "../format";
import { SpeakerTimeline } from "./speaker-timeline";

const texts = strings.player;
const MIN_RENEWAL_INTERVAL_MS = 10_000;
const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 2];

export interface PlayerHandle {
  seek: (timeS: number, andPlay?: boolean) => void;
  toggle: () => void;
  skip: (byS: number) => void;
  toggleOption: (key: "c" | "b" | "m" | "f") => void;
}

interface VideoPlayerProps {
  handle: Ref<PlayerHandle>;
  now: ReadonlySignal<number>;
  onTime: (timeS: number) => void;
  video: string;
  renewVideo: (() => Promise<string>) | null;
  vtt: string;
  cues: Cue[];
  faces: Map<string, Box[]>;
  transcript: Transcript;
  result: Result;
  speakers: string[];
}

export function VideoPlayer({ handle, now, onTime, video, renewVideo, vtt, cues, faces, transcript, result, speakers }: VideoPlayerProps) {
  const element = useRef<HTMLVideoElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const [isPlaying, setPlaying] = useState(false);
  const [hasFailed, setFailed] = useState(false);
  const [hasCaptions, setCaptions] = useState(loadItem("captions") !== "no");
  const [hasBoxes, setBoxes] = useState(loadItem("boxes") !== "no");
  const [isMuted, setMuted] = useState(false);
  const [speed, setSpeed] = useState(1);
  const [isFullScreen, setFullScreen] = useState(false);
  const [durationS, setDuration] = useState(result.media.duration_s);
  const track = useObjectUrl(vtt, "text/vtt");
  // Audio files have no video.
  const hasVideo = result.media.width_px > 0;

  const pendingSeek = useRef<number | null>(null);
  const { url, renew, resume } = useVideoUrl(element, video, renewVideo, now, setFailed);

  const seek = (timeS: number, andPlay = false) => {
    const target = Math.min(Math.max(0, timeS), durationS);
    onTime(target);
    const media = element.current;
    if (!media) return;
    // Browsers may ignore a seek before the metadata has loaded.
    if (media.readyState === HTMLMediaElement.HAVE_NOTHING) pendingSeek.current = target;
    media.currentTime = target;
    if (andPlay) media.play().catch(() => {});
  };
  const toggle = () => {
    const media = element.current;
    if (!media || hasFailed) return;
    if (media.paused) media.play().catch(() => {});
    else media.pause();
  };
  const toggleSaved = (name: string, isOn: boolean, set: (value: boolean) => void) => {
    saveItem(name, isOn ? "no" : "yes");
    set(!isOn);
  };
  const toggleCaptions = () => toggleSaved("captions", hasCaptions, setCaptions);
  const toggleBoxes = () => toggleSaved("boxes", hasBoxes, setBoxes);
  const toggleMuted = () => {
    if (element.current) element.current.muted = !isMuted;
  };
  const toggleFullScreen = () => {
    if (document.fullscreenElement) void document.exitFullscreen();
    else frame.current?.requestFullscreen?.().catch(() => {});
  };
  useImperativeHandle(handle, () => ({
    seek,
    toggle,
    skip: (byS) => seek((element.current?.currentTime ?? now.peek()) + byS),
    toggleOption: (key) => ({ c: toggleCaptions, b: toggleBoxes, m: toggleMuted, f: toggleFullScreen })[key](),
  }));

  useEffect(() => {
    const onFullScreenChange = () => setFullScreen(document.fullscreenElement !== null);
    document.addEventListener("fullscreenchange", onFullScreenChange);
    return () => document.removeEventListener("fullscreenchange", onFullScreenChange);
  }, []);

  // timeupdate fires about four times a second; captions and boxes are updated in every animation frame.
  useEffect(() => {
    if (!isPlaying) return;
    let request = 0;
    const follow = () => {
      if (element.current) onTime(element.current.currentTime);
      request = requestAnimationFrame(follow);
    };
    request = requestAnimationFrame(follow);
    return () => cancelAnimationFrame(request);
  }, [isPlaying]);

  const ratio = hasVideo ? result.media.width_px / Math.max(1, result.media.height_px) : 3.2;
  return (
    <section class="player card" aria-label={texts.label} ref={frame}>
      <div class="backdrop">
        <div class={hasVideo ? "screen" : "screen audio-only"} style={{ "--ratio": String(ratio) }}>
          {video && (
            <video
              ref={element}
              src={url}
              playsInline
              preload="auto"
              tabIndex={-1}
              onClick={toggle}
              onPlay={() => setPlaying(true)}
              onPause={() => setPlaying(false)}
              onEnded={() => setPlaying(false)}
              onSeeked={(event) => onTime(event.currentTarget.currentTime)}
              onTimeUpdate={(event) => onTime(event.currentTarget.currentTime)}
              onVolumeChange={(event) => setMuted(event.currentTarget.muted)}
              onLoadedMetadata={(event) => {
                resume();
                if (pendingSeek.current !== null) event.currentTarget.currentTime = pendingSeek.current;
                pendingSeek.current = null;
                // Recordings of MediaRecorder have no duration; seeking past the end determines it.
                if (event.currentTarget.duration === Infinity) event.currentTarget.currentTime = 1e7;
              }}
              onDurationChange={(event) => {
                const { duration } = event.currentTarget;
                if (!Number.isFinite(duration) || duration <= 0) return;
                setDuration(Math.max(duration, result.media.duration_s));
                if (event.currentTarget.currentTime > duration - 0.5 && event.currentTarget.paused) event.currentTarget.currentTime = 0;
              }}
              onError={renew}
            >
              {track && <track kind="captions" src={track} srcLang={result.language || "en"} label={texts.captions} />}
            </video>
          )}
          {(!video || hasFailed) && <p class="no-video">{video ? texts.cannotPlay : texts.noVideo}</p>}
          {hasBoxes && video && !hasFailed && <FaceBoxes now={now} faces={faces} transcript={transcript} />}
          {hasCaptions && <Caption now={now} cues={cues} transcript={transcript} speakers={speakers} />}
        </div>
      </div>
      <SpeakerTimeline transcript={transcript} speakers={speakers} durationS={durationS} now={now} seek={seek} />
      <div class="controls">
        <button type="button" class="plain round" aria-label={isPlaying ? texts.pause : texts.play} title={isPlaying ? texts.pause : texts.play} onClick={toggle} disabled={!video || hasFailed}>
          <Icon name={isPlaying ? "pause" : "play"} />
        </button>
        <Position now={now} durationS={durationS} seek={seek} />
        <button type="button" class="plain" aria-pressed={isMuted} aria-label={texts.mute} title={isMuted ? texts.unmute : texts.mute} onClick={toggleMuted} disabled={!video}>
          <Icon name={isMuted ? "muted" : "volume"} />
        </button>
        <label class="speed">
          <span class="visually-hidden">{texts.speed}</span>
          <select
            value={speed}
            title={texts.speed}
            onChange={(event) => {
              const value = Number(event.currentTarget.value);
              setSpeed(value);
              if (element.current) element.current.playbackRate = value;
            }}
          >
            {SPEEDS.map((value) => (
              <option key={value} value={value}>
                {value}×
              </option>
            ))}
          </select>
        </label>
        <button type="button" class="plain" aria-pressed={hasCaptions} aria-label={texts.captions} title={texts.captions} onClick={toggleCaptions}>
          <Icon name="captions" />
        </button>
        <button type="button" class="plain" aria-pressed={hasBoxes} aria-label={texts.faces} title={texts.faces} onClick={toggleBoxes}>
          <Icon name="face" />
        </button>
        <button type="button" class="plain" aria-label={isFullScreen ? texts.leaveFull : texts.full} title={isFullScreen ? texts.leaveFull : texts.full} onClick={toggleFullScreen}>
          <Icon name="full" />
        </button>
      </div>
    </section>
  );
}

/**
 * Manage the video's URL. When loading fails, request a new URL, since presigned ones expire, and resume at the same
 * position. A second failure shortly after means that the video cannot be played.
 */
function useVideoUrl(element: RefObject<HTMLVideoElement | null>, video: string, renewVideo: (() => Promise<string>) | null, now: ReadonlySignal<number>, setFailed: (hasFailed: boolean) => void) {
  const [url, setUrl] = useState(video);
  const renewedAtMs = useRef(-Infinity);
  const interrupted = useRef<{ timeS: number; wasPlaying: boolean } | null>(null);
  useEffect(() => {
    setUrl(video);
    setFailed(false);
  }, [video]);
  const renew = () => {
    if (!renewVideo || performance.now() - renewedAtMs.current < MIN_RENEWAL_INTERVAL_MS) {
      setFailed(true);
      return;
    }
    renewedAtMs.current = performance.now();
    interrupted.current = { timeS: now.peek(), wasPlaying: element.current !== null && !element.current.paused };
    renewVideo().then(
      (newUrl) => (newUrl ? setUrl(newUrl) : setFailed(true)),
      () => setFailed(true),
    );
  };
  const resume = () => {
    const media = element.current;
    if (!media || !interrupted.current) return;
    const { timeS, wasPlaying } = interrupted.current;
    interrupted.current = null;
    media.currentTime = timeS;
    if (wasPlaying) media.play().catch(() => {});
  };
  return { url, renew, resume };
}

function Caption({ now, cues, transcript, speakers }: { now: ReadonlySignal<number>; cues: Cue[]; transcript: Transcript; speakers: string[] }) {
  const timeS = now.value;
  const cue = cues.find((each) => each.start_s <= timeS && timeS < each.end_s);
  if (!cue) return null;
  return (
    <div class="caption" aria-hidden="true" data-testid="caption">
      {speakers.length > 1 && <span class={`caption-name person-${speakerColor(cue.person)}`}>{speakerName(transcript, cue.person)}</span>}
      {cue.lines.map((line, index) => (
        <span key={index} class="caption-line" dir="auto">
          {line}
        </span>
      ))}
    </div>
  );
}

function FaceBoxes({ now, faces, transcript }: { now: ReadonlySignal<number>; faces: Map<string, Box[]>; transcript: Transcript }) {
  const timeS = now.value;
  const speaking = new Set(segmentsAt(transcript.segments, timeS).map((segment) => segment.person));
  return (
    <div class="boxes" aria-hidden="true">
      {[...faces].map(([person, boxes]) => {
        const box = boxAt(boxes, timeS);
        if (!box) return null;
        const style = { left: `${box.left * 100}%`, top: `${box.top * 100}%`, width: `${box.width * 100}%`, height: `${box.height * 100}%` };
        return (
          <div key={person} class={`box person-${speakerColor(person)}${speaking.has(person) ? " speaking" : ""}`} style={style} data-person={person}>
            <span>{speakerName(transcript, person)}</span>
          </div>
        );
      })}
    </div>
  );
}

function Position({ now, durationS, seek }: { now: ReadonlySignal<number>; durationS: number; seek: (timeS: number) => void }) {
  const text = texts.positionText(formatTime(now.value), formatTime(durationS));
  return (
    <>
      <input type="range" class="position" min={0} max={durationS} step={0.01} value={now.value} aria-label={texts.position} aria-valuetext={text} onInput={(event) => seek(Number(event.currentTarget.value))} />
      <span class="clock" aria-hidden="true">
        {formatTime(now.value)} / {formatTime(durationS)}
      </span>
    </>
  );
}

/** Return an object URL for a text, revoked when the text changes. */
function useObjectUrl(text: string, type: string): string {
  const [url, setUrl] = useState("");
  useEffect(() => {
    const objectUrl = URL.createObjectURL(new Blob([text], { type }));
    setUrl(objectUrl);
    return () => URL.revokeObjectURL(objectUrl);
  }, [text, type]);
  return url;
}
