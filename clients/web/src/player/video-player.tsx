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

const words = strings.player;
const RENEWAL_REST_MS = 10_000;
const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 2];

export interface PlayerHandle {
  seek: (timeS: number, plays?: boolean) => void;
  toggle: () => void;
  skip: (byS: number) => void;
  press: (key: "c" | "b" | "m" | "f") => void;
}

interface PictureProps {
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
  people: string[];
}

export function VideoPlayer({ handle, now, onTime, video, renewVideo, vtt, cues, faces, transcript, result, people }: PictureProps) {
  const element = useRef<HTMLVideoElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const [isPlaying, setPlaying] = useState(false);
  const [fault, setFault] = useState(false);
  const [hasCaptions, setCaptions] = useState(loadItem("captions") !== "no");
  const [hasBoxes, setBoxes] = useState(loadItem("boxes") !== "no");
  const [isMuted, setMuted] = useState(false);
  const [speed, setSpeed] = useState(1);
  const [isFull, setFull] = useState(false);
  const [durationS, setDuration] = useState(result.media.duration_s);
  const track = useObjectUrl(vtt, "text/vtt");
  // What is heard alone has no picture to show.
  const hasVideo = result.media.width_px > 0;

  const wanted = useRef<number | null>(null);
  const { address, renew, resume } = useAddress(element, video, renewVideo, now, setFault);

  const seek = (timeS: number, plays = false) => {
    const target = Math.min(Math.max(0, timeS), durationS);
    onTime(target);
    const media = element.current;
    if (!media) return;
    // Browsers may forget where to go while they know nothing of the video yet.
    if (media.readyState === HTMLMediaElement.HAVE_NOTHING) wanted.current = target;
    media.currentTime = target;
    if (plays) media.play().catch(() => {});
  };
  const toggle = () => {
    const media = element.current;
    if (!media || fault) return;
    if (media.paused) media.play().catch(() => {});
    else media.pause();
  };
  const flip = (name: string, is: boolean, set: (value: boolean) => void) => {
    saveItem(name, is ? "no" : "yes");
    set(!is);
  };
  const toggleCaptions = () => flip("captions", hasCaptions, setCaptions);
  const toggleBoxes = () => flip("boxes", hasBoxes, setBoxes);
  const toggleMuted = () => {
    if (element.current) element.current.muted = !isMuted;
  };
  const toggleFull = () => {
    if (document.fullscreenElement) void document.exitFullscreen();
    else frame.current?.requestFullscreen?.().catch(() => {});
  };
  useImperativeHandle(handle, () => ({
    seek,
    toggle,
    skip: (byS) => seek((element.current?.currentTime ?? now.peek()) + byS),
    press: (key) => ({ c: toggleCaptions, b: toggleBoxes, m: toggleMuted, f: toggleFull })[key](),
  }));

  useEffect(() => {
    const onFull = () => setFull(document.fullscreenElement !== null);
    document.addEventListener("fullscreenchange", onFull);
    return () => document.removeEventListener("fullscreenchange", onFull);
  }, []);

  // The element tells its time four times a second only: captions and boxes follow each picture.
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
    <section class="player card" aria-label={words.label} ref={frame}>
      <div class="backdrop">
        <div class={hasVideo ? "screen" : "screen audio-only"} style={{ "--ratio": String(ratio) }}>
          {video && (
            <video
              ref={element}
              src={address}
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
                if (wanted.current !== null) event.currentTarget.currentTime = wanted.current;
                wanted.current = null;
                // A browser's own recording does not say how long it is: looking for its end finds out.
                if (event.currentTarget.duration === Infinity) event.currentTarget.currentTime = 1e7;
              }}
              onDurationChange={(event) => {
                const found = event.currentTarget.duration;
                if (!Number.isFinite(found) || found <= 0) return;
                setDuration(Math.max(found, result.media.duration_s));
                if (event.currentTarget.currentTime > found - 0.5 && event.currentTarget.paused) event.currentTarget.currentTime = 0;
              }}
              onError={renew}
            >
              {track && <track kind="captions" src={track} srcLang={result.language || "en"} label={words.captions} />}
            </video>
          )}
          {(!video || fault) && <p class="no-video">{video ? words.cannotPlay : words.noVideo}</p>}
          {hasBoxes && video && !fault && <FaceBoxes now={now} faces={faces} transcript={transcript} />}
          {hasCaptions && <Caption now={now} cues={cues} transcript={transcript} people={people} />}
        </div>
      </div>
      <SpeakerTimeline transcript={transcript} people={people} durationS={durationS} now={now} seek={seek} />
      <div class="controls">
        <button type="button" class="plain round" aria-label={isPlaying ? words.pause : words.play} title={isPlaying ? words.pause : words.play} onClick={toggle} disabled={!video || fault}>
          <Icon name={isPlaying ? "pause" : "play"} />
        </button>
        <Position now={now} durationS={durationS} seek={seek} />
        <button type="button" class="plain" aria-pressed={isMuted} aria-label={words.mute} title={isMuted ? words.unmute : words.mute} onClick={toggleMuted} disabled={!video}>
          <Icon name={isMuted ? "muted" : "volume"} />
        </button>
        <label class="speed">
          <span class="hidden">{words.speed}</span>
          <select
            value={speed}
            title={words.speed}
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
        <button type="button" class="plain" aria-pressed={hasCaptions} aria-label={words.captions} title={words.captions} onClick={toggleCaptions}>
          <Icon name="captions" />
        </button>
        <button type="button" class="plain" aria-pressed={hasBoxes} aria-label={words.faces} title={words.faces} onClick={toggleBoxes}>
          <Icon name="face" />
        </button>
        <button type="button" class="plain" aria-label={isFull ? words.leaveFull : words.full} title={isFull ? words.leaveFull : words.full} onClick={toggleFull}>
          <Icon name="full" />
        </button>
      </div>
    </section>
  );
}

/**
 * The video's address, and another one where it has run out: then the player goes on from where it was. A second failure
 * within a moment is no old address but a video that cannot be played.
 */
function useAddress(element: RefObject<HTMLVideoElement | null>, video: string, renewVideo: (() => Promise<string>) | null, now: ReadonlySignal<number>, setFault: (is: boolean) => void) {
  const [address, setAddress] = useState(video);
  const renewedAt = useRef(-Infinity);
  const left = useRef<{ timeS: number; plays: boolean } | null>(null);
  useEffect(() => {
    setAddress(video);
    setFault(false);
  }, [video]);
  const renew = () => {
    if (!renewVideo || performance.now() - renewedAt.current < RENEWAL_REST_MS) {
      setFault(true);
      return;
    }
    renewedAt.current = performance.now();
    left.current = { timeS: now.peek(), plays: element.current !== null && !element.current.paused };
    renewVideo().then(
      (found) => (found ? setAddress(found) : setFault(true)),
      () => setFault(true),
    );
  };
  const resume = () => {
    const media = element.current;
    if (!media || !left.current) return;
    const { timeS, plays } = left.current;
    left.current = null;
    media.currentTime = timeS;
    if (plays) media.play().catch(() => {});
  };
  return { address, renew, resume };
}

function Caption({ now, cues, transcript, people }: { now: ReadonlySignal<number>; cues: Cue[]; transcript: Transcript; people: string[] }) {
  const timeS = now.value;
  const cue = cues.find((each) => each.start_s <= timeS && timeS < each.end_s);
  if (!cue) return null;
  return (
    <div class="caption" aria-hidden="true" data-testid="caption">
      {people.length > 1 && <span class={`caption-name person-${speakerColor(cue.person)}`}>{speakerName(transcript, cue.person)}</span>}
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
        const place = { left: `${box.left * 100}%`, top: `${box.top * 100}%`, width: `${box.width * 100}%`, height: `${box.height * 100}%` };
        return (
          <div key={person} class={`box person-${speakerColor(person)}${speaking.has(person) ? " speaking" : ""}`} style={place} data-person={person}>
            <span>{speakerName(transcript, person)}</span>
          </div>
        );
      })}
    </div>
  );
}

function Position({ now, durationS, seek }: { now: ReadonlySignal<number>; durationS: number; seek: (timeS: number) => void }) {
  const text = words.positionText(formatTime(now.value), formatTime(durationS));
  return (
    <>
      <input type="range" class="position" min={0} max={durationS} step={0.01} value={now.value} aria-label={words.position} aria-valuetext={text} onInput={(event) => seek(Number(event.currentTarget.value))} />
      <span class="clock" aria-hidden="true">
        {formatTime(now.value)} / {formatTime(durationS)}
      </span>
    </>
  );
}

/** A text as an address, until it changes. */
function useObjectUrl(text: string, type: string): string {
  const [url, setUrl] = useState("");
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([text], { type }));
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [text, type]);
  return url;
}
