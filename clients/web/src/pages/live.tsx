/** Live captions: camera and microphone in, words out. */

import { useEffect, useRef, useState } from "preact/hooks";
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

const words = strings.live;
const MIN_BEHIND_S = 4;
const SIZES = ["small", "medium", "large"] as const;

type State = "idle" | "asking" | ConnectionState;

export function LivePage() {
  const [state, setState] = useState<State>("idle");
  const [problem, setProblem] = useState("");
  const [devices, setDevices] = useState<Devices>({ cameras: [], microphones: [] });
  const [camera, setCamera] = useState(loadItem("camera") ?? "");
  const [microphone, setMicrophone] = useState(loadItem("microphone") ?? "");
  const [stream, setStream] = useState<MediaStream | null>(null);
  const [lines, setLines] = useState<LiveTranscript>(EMPTY_TRANSCRIPT);
  const [faces, setFaces] = useState<number | null>(null);
  const [speaking, setSpeaking] = useState<readonly string[]>([]);
  const [behindS, setBehind] = useState(0);
  const [size, setSize] = useState<number>(Number(loadItem("live-size") ?? 1));
  const [session, setSession] = useState<Session | null>(null);
  const [isKept, setKept] = useState(false);
  const run = useRef<Run | null>(null);

  useEffect(() => {
    document.title = `${words.title} · ${strings.app.name}`;
    if (!canCapture) return;
    const refresh = () => void listDevices().then(setDevices, () => {});
    refresh();
    navigator.mediaDevices.addEventListener?.("devicechange", refresh);
    return () => {
      navigator.mediaDevices.removeEventListener?.("devicechange", refresh);
      run.current?.leave();
    };
  }, []);

  // A voice-over of what is being lost: people leave by accident.
  useEffect(() => {
    if (!stream) return;
    const warn = (event: BeforeUnloadEvent) => event.preventDefault();
    window.addEventListener("beforeunload", warn);
    return () => window.removeEventListener("beforeunload", warn);
  }, [stream]);

  const start = async () => {
    setProblem("");
    if (camera === "none" && microphone === "none") {
      setProblem(words.nothingChosen);
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
    setLines(EMPTY_TRANSCRIPT);
    setSession(null);
    setKept(false);
    setFaces(null);
    setSpeaking([]);
    setBehind(0);
    setStream(opened);
    run.current = new Run(opened, {
      state: setState,
      lines: (change) => setLines(change),
      faces: setFaces,
      speaking: (change) => setSpeaking(change),
      behind: setBehind,
      warning: (message) => notify(message),
      done: (reason, finished) => {
        setStream(null);
        setState("ended");
        if (reason) setProblem(words.failed(reason));
        if (finished) setSession(finished);
      },
    });
    void run.current.begin();
  };
  const stop = () => void run.current?.stop();
  const keepIt = async () => {
    if (!session) return;
    try {
      await saveSession(session);
      setKept(true);
      notify(words.kept);
    } catch {
      notify(words.keepFailed, "error");
    }
  };
  const resize = (by: number) => {
    const next = Math.min(SIZES.length - 1, Math.max(0, size + by));
    saveItem("live-size", String(next));
    setSize(next);
  };
  const choose = (name: string, set: (value: string) => void) => (value: string) => {
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
            <button type="button" class="primary" disabled={isKept} onClick={() => void keepIt()}>
              <Icon name="check" /> {isKept ? words.kept : words.keep}
            </button>
            <button type="button" onClick={() => void start()}>
              {words.again}
            </button>
          </div>
        </div>
        {problem && <ErrorMessage text={problem} />}
        <SessionEditor session={session} isKept={isKept} />
      </main>
    );
  }
  return (
    <main id="content" tabIndex={-1} class="live">
      <div class="title">
        <h1>{words.title}</h1>
        <p class="lead">{words.lead}</p>
      </div>
      {!canCapture && <ErrorMessage text={words.noDevices} />}
      {problem && <ErrorMessage text={problem} />}
      <div class="live-grid">
        <section class="card live-side" aria-label={words.camera}>
          <Preview stream={stream} />
          <div class="indicators">
            <LevelMeter stream={stream} />
            <p class={faces ? "face-count" : "face-count quiet"}>
              <Icon name="face" /> {!isOn ? words.facesOff : faces === null ? "…" : words.faces(faces)}
            </p>
          </div>
          <DeviceSelect label={words.camera} icon="camera" value={camera} devices={devices.cameras} standard={words.defaultCamera} none={words.noCamera} disabled={isOn} onChange={choose("camera", setCamera)} />
          <DeviceSelect label={words.microphone} icon="microphone" value={microphone} devices={devices.microphones} standard={words.defaultMicrophone} none={words.noMicrophone} disabled={isOn} onChange={choose("microphone", setMicrophone)} />
          {isOn ? (
            <button type="button" class="primary stop" disabled={state === "finishing"} onClick={stop}>
              {words.stop}
            </button>
          ) : (
            <button type="button" class="primary" disabled={!canCapture || state === "asking"} onClick={() => void start()}>
              {words.start}
            </button>
          )}
          <p class={`live-state ${state}`} role="status">
            <span class="dot" aria-hidden="true" />
            {words.states[state]}
            {isOn && behindS >= MIN_BEHIND_S && <span class="quiet"> · {words.behind(behindS)}</span>}
          </p>
        </section>
        <Captions lines={lines} speaking={speaking} size={SIZES[size] ?? "medium"} resize={resize} />
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
  const hasPicture = (stream?.getVideoTracks().length ?? 0) > 0;
  useEffect(() => {
    if (video.current) video.current.srcObject = stream;
  }, [stream, hasPicture]);
  return <div class="preview">{hasPicture ? <video ref={video} muted autoplay playsInline aria-label={words.preview} /> : <Icon name={stream ? "microphone" : "camera"} />}</div>;
}

function LevelMeter({ stream }: { stream: MediaStream | null }) {
  const bar = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!stream) return;
    let told = -1;
    return monitorLevel(stream, (level) => {
      const percent = Math.round(level * 100);
      if (percent === told || !bar.current) return;
      told = percent;
      // Sixty times a second: past the components, into the element itself.
      bar.current.style.setProperty("--level", String(level));
      bar.current.setAttribute("aria-valuenow", String(percent));
    });
  }, [stream]);
  return (
    <div class="level" role="meter" aria-label={words.level} aria-valuemin={0} aria-valuemax={100} aria-valuenow={0} ref={bar}>
      <div />
    </div>
  );
}

interface ChoiceProps {
  label: string;
  icon: "camera" | "microphone";
  value: string;
  devices: MediaDeviceInfo[];
  standard: string;
  none: string;
  disabled: boolean;
  onChange: (value: string) => void;
}

function DeviceSelect({ label, icon, value, devices, standard, none, disabled, onChange }: ChoiceProps) {
  const named = devices.filter((device) => device.deviceId && device.deviceId !== "default" && device.label);
  const known = value === "" || value === "none" || named.some((device) => device.deviceId === value);
  return (
    <label class="choice">
      <span>
        <Icon name={icon} /> {label}
      </span>
      <select value={known ? value : ""} disabled={disabled} onChange={(event) => onChange(event.currentTarget.value)}>
        <option value="">{standard}</option>
        {named.map((device) => (
          <option key={device.deviceId} value={device.deviceId}>
            {device.label}
          </option>
        ))}
        <option value="none">{none}</option>
      </select>
    </label>
  );
}

function Captions({ lines, speaking, size, resize }: { lines: LiveTranscript; speaking: readonly string[]; size: string; resize: (by: number) => void }) {
  const box = useRef<HTMLDivElement>(null);
  const sticks = useRef(true);
  useEffect(() => {
    // Whoever scrolled up to read stays there.
    if (box.current && sticks.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines]);
  const several = lines.speakers.length > 1;
  const names = speakerNames(lines, words.voice);
  const name = (speaker: string) => speakerName({ names }, speakerId(lines, speaker));
  return (
    <section class={`card live-words ${size}`} aria-labelledby="live-words">
      <div class="transcript-head">
        <h2 id="live-words">{words.words}</h2>
        <div class="group">
          <button type="button" aria-label={words.smaller} title={words.smaller} class="plain" disabled={size === SIZES[0]} onClick={() => resize(-1)}>
            A−
          </button>
          <button type="button" aria-label={words.larger} title={words.larger} class="plain" disabled={size === SIZES.at(-1)} onClick={() => resize(1)}>
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
          sticks.current = scrollHeight - scrollTop - clientHeight < 40;
        }}
      >
        {!lines.final.length && !lines.interim.length && <p class="quiet">{words.waiting}</p>}
        {/* Only what stands is read out. */}
        <div role="log" aria-live="polite">
          {lines.final.map((line) => (
            <p key={line.segment_id} class={`final person-${speakerColor(speakerId(lines, line.speaker))}`} dir="auto">
              {several && <strong>{name(line.speaker)}</strong>} {line.text}
            </p>
          ))}
        </div>
        <div aria-hidden="true">
          {lines.interim.map((line) => (
            <p key={line.segment_id} class={`interim person-${speakerColor(speakerId(lines, line.speaker))}`} dir="auto">
              {several && <strong>{name(line.speaker)}</strong>} {line.text}
            </p>
          ))}
        </div>
      </div>
      {speaking.length > 0 && (
        <p class="quiet speaking" aria-hidden="true">
          {speaking.map(name).join(", ")} {words.speaking} …
        </p>
      )}
    </section>
  );
}

function deviceProblem(error: unknown): string {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") return words.denied;
  if (name === "NotFoundError" || name === "OverconstrainedError") return words.noDevice;
  if (name === "NotReadableError" || name === "AbortError") return words.inUse;
  return String(error);
}

// -------------------------------------------------------------------------------------------------------------- run

interface RunEvents {
  state: (state: State) => void;
  lines: (change: (lines: LiveTranscript) => LiveTranscript) => void;
  faces: (faces: number) => void;
  speaking: (change: (before: readonly string[]) => readonly string[]) => void;
  behind: (seconds: number) => void;
  warning: (message: string) => void;
  done: (reason: string, session: Session | null) => void;
}

/** One live session, from the first picture to the last word. */
class Run {
  private capture: Capture | null = null;
  private connection: LiveConnection | null = null;
  private lines: LiveTranscript = EMPTY_TRANSCRIPT;
  private model = "";
  private size = { widthPx: 0, heightPx: 0 };
  private durationS = 0;
  private readonly startedMs = performance.now();
  private readonly createdAt = new Date().toISOString();

  constructor(
    private readonly stream: MediaStream,
    private readonly events: RunEvents,
  ) {}

  async begin(): Promise<void> {
    const waiting: ArrayBuffer[] = [];
    this.capture = await startCapture(this.stream, (piece) => (this.connection ? this.connection.send(piece) : waiting.push(piece)));
    const { token, config } = api.value;
    const modality = this.modality;
    this.connection = new LiveConnection(
      config.live,
      { type: "start", media: this.capture.media, modality, interim: true, face_boxes: modality !== "audio", ...(token ? { token } : {}) },
      { state: this.events.state, message: (message) => this.take(message), ended: (reason) => void this.ended(reason) },
    );
    for (const piece of waiting) this.connection.send(piece);
    // A camera that is pulled out ends the session, and does not lose it.
    for (const track of this.stream.getTracks()) track.addEventListener("ended", () => void this.stop());
  }

  async stop(): Promise<void> {
    if (!this.capture) return;
    this.events.state("finishing");
    await this.capture.stop();
    this.connection?.stop();
  }

  /** The page is left: nothing is kept. */
  leave(): void {
    void this.capture?.stop();
    this.connection?.close();
    release(this.stream);
  }

  private get modality(): Modality {
    const hasSound = this.stream.getAudioTracks().length > 0;
    if (!this.capture?.hasVideo) return "audio";
    return hasSound ? "av" : "video";
  }

  private take(message: ServerMessage): void {
    switch (message.type) {
      case "started":
        this.model = message.model;
        break;
      case "media":
        this.size = { widthPx: message.width_px, heightPx: message.height_px };
        break;
      case "segment":
        this.lines = addSegment(this.lines, message);
        this.events.lines(() => this.lines);
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
        this.events.behind(Math.round((performance.now() - this.startedMs) / 1000 - message.received_s));
        break;
      case "warning":
        this.events.warning(message.message);
        break;
      case "recovering":
        // What was still open comes again, from another reader and under other names.
        this.lines = { ...this.lines, interim: [] };
        this.events.lines(() => this.lines);
        break;
      case "finished":
        this.durationS = message.duration_s;
        break;
    }
  }

  private async ended(reason: string): Promise<void> {
    const recording = (await this.capture?.stop()) ?? null;
    release(this.stream);
    this.events.done(reason, this.lines.final.length || recording?.size ? this.session(recording) : null);
  }

  private session(recording: Blob | null): Session {
    const name = words.name(formatDate(this.createdAt));
    const result = toResult(this.lines, { name, durationS: this.durationS, ...this.size, model: this.model, modality: this.modality });
    return { id: crypto.randomUUID(), name, createdAt: this.createdAt, durationS: this.durationS, result, names: speakerNames(this.lines, words.voice), recording };
  }
}

