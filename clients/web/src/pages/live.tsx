/** Live captions from camera and microphone. */

import { useEffect, useRef, useState } from "preact/hooks";
import { DoubtfulMark } from "../components/doubtful-mark";
import { Icon } from "../icons";
import type { Capture, Devices } from "../live/capture";
import { canCapture, listDevices, openDevices, release, startCapture, monitorLevel } from "../live/capture";
import type { ConnectionState } from "../live/connection";
import { LiveConnection } from "../live/connection";
import type { Modality, ServerMessage } from "../live/messages";
import type { Session } from "../live/sessions";
import { saveSession } from "../live/sessions";
import type { LiveTranscript } from "../live/transcript";
import { EMPTY_TRANSCRIPT, speakerNames, speakerId, toResult, addSegment } from "../live/transcript";
import { speakerName } from "../captions";
import { speakerColor } from "../result";
import { api, saveItem, loadItem, notify } from "../store";
import { strings } from "../i18n/en";
import { formatDate } from "../format";
import { SessionEditor } from "./session";

const texts = strings.live;
const MIN_LAG_SHOWN_S = 4;
const SIZES = ["small", "medium", "large"] as const;

type State = "idle" | "asking" | ConnectionState;

export function LivePage() {
  const [state, setState] = useState<State>("idle");
  const [problem, setProblem] = useState("");
  const [devices, setDevices] = useState<Devices>({ cameras: [], microphones: [] });
  const [camera, setCamera] = useState(loadItem("camera") ?? "");
  const [microphone, setMicrophone] = useState(loadItem("microphone") ?? "");
  const [stream, setStream] = useState<MediaStream | null>(null);
  const [transcript, setTranscript] = useState<LiveTranscript>(EMPTY_TRANSCRIPT);
  const [faces, setFaces] = useState<number | null>(null);
  const [speaking, setSpeaking] = useState<readonly string[]>([]);
  const [lagS, setLag] = useState(0);
  const [size, setSize] = useState<number>(Number(loadItem("live-size") ?? 1));
  const [session, setSession] = useState<Session | null>(null);
  const [isSaved, setSaved] = useState(false);
  const liveSession = useRef<LiveSession | null>(null);

  useEffect(() => {
    document.title = `${texts.title} · ${strings.app.name}`;
    if (!canCapture) return;
    const refresh = () => void listDevices().then(setDevices, () => {});
    refresh();
    navigator.mediaDevices.addEventListener?.("devicechange", refresh);
    return () => {
      navigator.mediaDevices.removeEventListener?.("devicechange", refresh);
      liveSession.current?.discard();
    };
  }, []);

  // Ask before leaving during a session.
  useEffect(() => {
    if (!stream) return;
    const warn = (event: BeforeUnloadEvent) => event.preventDefault();
    window.addEventListener("beforeunload", warn);
    return () => window.removeEventListener("beforeunload", warn);
  }, [stream]);

  const start = async () => {
    setProblem("");
    if (camera === "none" && microphone === "none") {
      setProblem(texts.noneSelected);
      return;
    }
    setState("asking");
    let opened: MediaStream;
    try {
      opened = await openDevices(camera, microphone);
    } catch (error) {
      setState("idle");
      setProblem(deviceProblem(error));
      return;
    }
    void listDevices().then(setDevices);
    setTranscript(EMPTY_TRANSCRIPT);
    setSession(null);
    setSaved(false);
    setFaces(null);
    setSpeaking([]);
    setLag(0);
    setStream(opened);
    liveSession.current = new LiveSession(opened, {
      state: setState,
      transcript: setTranscript,
      faces: setFaces,
      speaking: setSpeaking,
      lag: setLag,
      warning: (message) => notify(message),
      done: (reason, finished) => {
        setStream(null);
        setState("ended");
        if (reason) setProblem(texts.failed(reason));
        if (finished) setSession(finished);
      },
    });
    void liveSession.current.start();
  };
  const stop = () => void liveSession.current?.stop();
  const save = async () => {
    if (!session) return;
    try {
      await saveSession(session);
      setSaved(true);
      notify(texts.saved);
    } catch {
      notify(texts.saveFailed, "error");
    }
  };
  const resize = (steps: number) => {
    const next = Math.min(SIZES.length - 1, Math.max(0, size + steps));
    saveItem("live-size", String(next));
    setSize(next);
  };
  const saveChoice = (name: string, set: (value: string) => void) => (value: string) => {
    saveItem(name, value);
    set(value);
  };

  const isOn = stream !== null;
  if (session) {
    return (
      <main id="content" tabIndex={-1} class="job">
        <div class="title">
          <h1>{session.name}</h1>
          <div class="row-actions">
            <button type="button" class="primary" disabled={isSaved} onClick={() => void save()}>
              <Icon name="check" /> {isSaved ? texts.saved : texts.save}
            </button>
            <button type="button" onClick={() => void start()}>
              {texts.again}
            </button>
          </div>
        </div>
        {problem && <ErrorMessage text={problem} />}
        <SessionEditor session={session} isSaved={isSaved} />
      </main>
    );
  }
  return (
    <main id="content" tabIndex={-1} class="live">
      <div class="title">
        <h1>{texts.title}</h1>
        <p class="lead">{texts.lead}</p>
      </div>
      {!canCapture && <ErrorMessage text={texts.noDevices} />}
      {problem && <ErrorMessage text={problem} />}
      <div class="live-grid">
        <section class="card live-side" aria-label={texts.camera}>
          <Preview stream={stream} />
          <div class="indicators">
            <LevelMeter stream={stream} />
            <p class={faces ? "face-count" : "face-count quiet"}>
              <Icon name="face" /> {!isOn ? texts.facesOff : faces === null ? "…" : texts.faces(faces)}
            </p>
          </div>
          <DeviceSelect label={texts.camera} icon="camera" value={camera} devices={devices.cameras} defaultLabel={texts.defaultCamera} none={texts.noCamera} disabled={isOn} onChange={saveChoice("camera", setCamera)} />
          <DeviceSelect label={texts.microphone} icon="microphone" value={microphone} devices={devices.microphones} defaultLabel={texts.defaultMicrophone} none={texts.noMicrophone} disabled={isOn} onChange={saveChoice("microphone", setMicrophone)} />
          {isOn ? (
            <button type="button" class="primary stop" disabled={state === "finishing"} onClick={stop}>
              {texts.stop}
            </button>
          ) : (
            <button type="button" class="primary" disabled={!canCapture || state === "asking"} onClick={() => void start()}>
              {texts.start}
            </button>
          )}
          <p class={`live-state ${state}`} role="status">
            <span class="dot" aria-hidden="true" />
            {texts.states[state]}
            {isOn && lagS >= MIN_LAG_SHOWN_S && <span class="quiet"> · {texts.lag(lagS)}</span>}
          </p>
        </section>
        <Captions transcript={transcript} speaking={speaking} size={SIZES[size] ?? "medium"} resize={resize} />
      </div>
    </main>
  );
}

function ErrorMessage({ text }: { text: string }) {
  return (
    <p role="alert" class="problem">
      <Icon name="warning" /> {text}
    </p>
  );
}

function Preview({ stream }: { stream: MediaStream | null }) {
  const video = useRef<HTMLVideoElement>(null);
  const hasVideo = (stream?.getVideoTracks().length ?? 0) > 0;
  useEffect(() => {
    if (video.current) video.current.srcObject = stream;
  }, [stream, hasVideo]);
  return <div class="preview">{hasVideo ? <video ref={video} muted autoplay playsInline aria-label={texts.preview} /> : <Icon name={stream ? "microphone" : "camera"} />}</div>;
}

function LevelMeter({ stream }: { stream: MediaStream | null }) {
  const bar = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!stream) return;
    let shownPercent = -1;
    return monitorLevel(stream, (level) => {
      const percent = Math.round(level * 100);
      if (percent === shownPercent || !bar.current) return;
      shownPercent = percent;
      // Sixty times a second: update the element directly, without rendering.
      bar.current.style.setProperty("--level", String(level));
      bar.current.setAttribute("aria-valuenow", String(percent));
    });
  }, [stream]);
  return (
    <div class="level" role="meter" aria-label={texts.level} aria-valuemin={0} aria-valuemax={100} aria-valuenow={0} ref={bar}>
      <div />
    </div>
  );
}

interface DeviceSelectProps {
  label: string;
  icon: "camera" | "microphone";
  value: string;
  devices: MediaDeviceInfo[];
  defaultLabel: string;
  none: string;
  disabled: boolean;
  onChange: (value: string) => void;
}

function DeviceSelect({ label, icon, value, devices, defaultLabel, none, disabled, onChange }: DeviceSelectProps) {
  const listed = devices.filter((device) => device.deviceId && device.deviceId !== "default" && device.label);
  const isListed = value === "" || value === "none" || listed.some((device) => device.deviceId === value);
  return (
    <label class="choice">
      <span>
        <Icon name={icon} /> {label}
      </span>
      <select value={isListed ? value : ""} disabled={disabled} onChange={(event) => onChange(event.currentTarget.value)}>
        <option value="">{defaultLabel}</option>
        {listed.map((device) => (
          <option key={device.deviceId} value={device.deviceId}>
            {device.label}
          </option>
        ))}
        <option value="none">{none}</option>
      </select>
    </label>
  );
}

function Captions({ transcript, speaking, size, resize }: { transcript: LiveTranscript; speaking: readonly string[]; size: string; resize: (steps: number) => void }) {
  const box = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  useEffect(() => {
    // Follow the newest caption unless the user has scrolled up.
    if (box.current && isAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [transcript]);
  const hasSeveralSpeakers = transcript.speakers.length > 1;
  const names = speakerNames(transcript, texts.voice);
  const name = (speaker: string) => speakerName({ names }, speakerId(transcript, speaker));
  return (
    <section class={`card live-words ${size}`} aria-labelledby="live-words">
      <div class="transcript-head">
        <h2 id="live-words">{texts.captions}</h2>
        <div class="group">
          <button type="button" aria-label={texts.smaller} title={texts.smaller} class="plain" disabled={size === SIZES[0]} onClick={() => resize(-1)}>
            A−
          </button>
          <button type="button" aria-label={texts.larger} title={texts.larger} class="plain" disabled={size === SIZES.at(-1)} onClick={() => resize(1)}>
            A+
          </button>
        </div>
      </div>
      <div
        class="live-scroll"
        ref={box}
        tabIndex={0}
        role="group"
        aria-labelledby="live-words"
        onScroll={(event) => {
          const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
          isAtEnd.current = scrollHeight - scrollTop - clientHeight < 40;
        }}
      >
        {!transcript.final.length && !transcript.interim.length && <p class="quiet">{texts.waiting}</p>}
        {/* Screen readers announce final captions only. */}
        <div role="log" aria-live="polite">
          {transcript.final.map((segment) => (
            <p key={segment.segment_id} class={`final person-${speakerColor(speakerId(transcript, segment.speaker))}`} dir="auto">
              {hasSeveralSpeakers && <strong>{name(segment.speaker)}</strong>} {segment.doubtful && <DoubtfulMark />}
              {segment.text}
            </p>
          ))}
        </div>
        <div aria-hidden="true">
          {transcript.interim.map((segment) => (
            <p key={segment.segment_id} class={`interim person-${speakerColor(speakerId(transcript, segment.speaker))}`} dir="auto">
              {hasSeveralSpeakers && <strong>{name(segment.speaker)}</strong>} {segment.doubtful && <DoubtfulMark />}
              {segment.text}
            </p>
          ))}
        </div>
      </div>
      {speaking.length > 0 && (
        <p class="quiet speaking" aria-hidden="true">
          {texts.speaking(speaking.map(name).join(", "))}
        </p>
      )}
    </section>
  );
}

function deviceProblem(error: unknown): string {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") return texts.denied;
  if (name === "NotFoundError" || name === "OverconstrainedError") return texts.noDevice;
  if (name === "NotReadableError" || name === "AbortError") return texts.inUse;
  return String(error);
}

// ---------------------------------------------------------------------------------------------------------- session

interface LiveSessionEvents {
  state: (state: State) => void;
  transcript: (transcript: LiveTranscript) => void;
  faces: (faces: number) => void;
  speaking: (change: (before: readonly string[]) => readonly string[]) => void;
  lag: (seconds: number) => void;
  warning: (message: string) => void;
  done: (reason: string, session: Session | null) => void;
}

/** A running live session: captures media, sends it and collects the transcript. */
class LiveSession {
  private capture: Capture | null = null;
  private connection: LiveConnection | null = null;
  private transcript: LiveTranscript = EMPTY_TRANSCRIPT;
  private model = "";
  private size = { widthPx: 0, heightPx: 0 };
  private durationS = 0;
  private readonly startedMs = performance.now();
  private readonly createdAt = new Date().toISOString();

  constructor(
    private readonly stream: MediaStream,
    private readonly events: LiveSessionEvents,
  ) {}

  async start(): Promise<void> {
    const pending: ArrayBuffer[] = [];
    this.capture = await startCapture(this.stream, (chunk) => (this.connection ? this.connection.send(chunk) : pending.push(chunk)));
    const { token, config } = api.value;
    const modality = this.modality;
    this.connection = new LiveConnection(
      config.live,
      { type: "start", media: this.capture.media, modality, interim: true, face_boxes: modality !== "audio", ...(token ? { token } : {}) },
      { state: this.events.state, message: (message) => this.onMessage(message), ended: (reason) => void this.onEnded(reason) },
    );
    for (const chunk of pending) this.connection.send(chunk);
    // Unplugging a device ends the session regularly, so that it can be saved.
    for (const track of this.stream.getTracks()) track.addEventListener("ended", () => void this.stop());
  }

  async stop(): Promise<void> {
    if (!this.capture) return;
    this.events.state("finishing");
    await this.capture.stop();
    this.connection?.stop();
  }

  /** Stop without keeping anything. */
  discard(): void {
    void this.capture?.stop();
    this.connection?.close();
    release(this.stream);
  }

  private get modality(): Modality {
    const hasAudio = this.stream.getAudioTracks().length > 0;
    if (!this.capture?.hasVideo) return "audio";
    return hasAudio ? "av" : "video";
  }

  private onMessage(message: ServerMessage): void {
    switch (message.type) {
      case "started":
        this.model = message.model;
        break;
      case "media":
        this.size = { widthPx: message.width_px, heightPx: message.height_px };
        break;
      case "segment":
        this.transcript = addSegment(this.transcript, message);
        this.events.transcript(this.transcript);
        break;
      case "activity":
        this.events.speaking((before) => {
          const others = before.filter((speaker) => speaker !== message.speaker);
          return message.kind === "speech_begin" ? [...others, message.speaker] : others;
        });
        break;
      case "progress":
        this.durationS = Math.max(this.durationS, message.received_s);
        this.events.faces(message.faces);
        this.events.lag(Math.round((performance.now() - this.startedMs) / 1000 - message.received_s));
        break;
      case "warning":
        this.events.warning(message.message);
        break;
      case "recovering":
        // Interim segments are sent again by another server, with new IDs.
        this.transcript = { ...this.transcript, interim: [] };
        this.events.transcript(this.transcript);
        break;
      case "finished":
        this.durationS = message.duration_s;
        break;
    }
  }

  private async onEnded(reason: string): Promise<void> {
    const recording = (await this.capture?.stop()) ?? null;
    release(this.stream);
    this.events.done(reason, this.transcript.final.length || recording?.size ? this.toSession(recording) : null);
  }

  private toSession(recording: Blob | null): Session {
    const name = texts.name(formatDate(this.createdAt));
    const result = toResult(this.transcript, { name, durationS: this.durationS, ...this.size, model: this.model, modality: this.modality });
    return { id: crypto.randomUUID(), name, createdAt: this.createdAt, durationS: this.durationS, result, names: speakerNames(this.transcript, texts.voice), recording };
  }
}

