/** Camera and microphone: devices, audio level, and capture as chunks of WebM or PCM. */

import workletUrl from "./pcm.worklet.ts?worker&url";

export interface Devices {
  cameras: MediaDeviceInfo[];
  microphones: MediaDeviceInfo[];
}

/** Whether the browser gives access to devices (it requires HTTPS or localhost). */
export const canCapture = typeof navigator.mediaDevices?.getUserMedia === "function";

// Enough for a mouth of 96 pixels, and low enough for slow uplinks.
const VIDEO_BITS_PER_S = 1_500_000;
const CHUNK_MS = 200;
const SAMPLE_RATE_HZ = 16_000;

/** List the devices. Their labels are empty until permission has been granted once. */
export async function listDevices(): Promise<Devices> {
  const all = await navigator.mediaDevices.enumerateDevices();
  const filterByKind = (kind: MediaDeviceKind) => all.filter((device) => device.kind === kind);
  return { cameras: filterByKind("videoinput"), microphones: filterByKind("audioinput") };
}

/** Open devices by ID; "" selects the default device, "none" disables it. */
export function openDevices(camera: string, microphone: string): Promise<MediaStream> {
  const constraint = (id: string) => (id ? { deviceId: { exact: id } } : {});
  return navigator.mediaDevices.getUserMedia({
    video: camera === "none" ? false : { ...constraint(camera), width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 25, max: 30 } },
    audio: microphone === "none" ? false : { ...constraint(microphone), echoCancellation: false, noiseSuppression: false, autoGainControl: true },
  });
}

export interface Capture {
  media: "webm" | "pcm";
  /** Whether the media has video. */
  hasVideo: boolean;
  /** Stop capturing. Resolves after the last chunk with the recording, or null for PCM. */
  stop: () => Promise<Blob | null>;
}

/** Capture a stream as chunks of WebM if the browser can record it, otherwise its audio as 16-bit PCM. */
export function startCapture(stream: MediaStream, onChunk: (chunk: ArrayBuffer) => void): Promise<Capture> {
  const hasVideo = stream.getVideoTracks().length > 0;
  const type = (hasVideo ? ["video/webm;codecs=vp8,opus", "video/webm;codecs=vp9,opus", "video/webm"] : ["audio/webm;codecs=opus", "audio/webm"]).find((each) => window.MediaRecorder?.isTypeSupported(each));
  return type ? Promise.resolve(recordWebm(stream, type, hasVideo, onChunk)) : capturePcm(stream, onChunk);
}

function recordWebm(stream: MediaStream, mimeType: string, hasVideo: boolean, onChunk: (chunk: ArrayBuffer) => void): Capture {
  // After a server is lost, decoding resumes at a key frame; an interval of two seconds limits repeated work.
  const options = { mimeType, videoBitsPerSecond: VIDEO_BITS_PER_S, videoKeyFrameIntervalDuration: 2000 };
  const recorder = new MediaRecorder(stream, options);
  const chunks: Blob[] = [];
  let sent = Promise.resolve();
  recorder.ondataavailable = (event) => {
    if (!event.data.size) return;
    chunks.push(event.data);
    sent = sent.then(async () => onChunk(await event.data.arrayBuffer()));
  };
  const stopped = new Promise<void>((resolve) => (recorder.onstop = () => resolve()));
  recorder.start(CHUNK_MS);
  return {
    media: "webm",
    hasVideo,
    stop: async () => {
      if (recorder.state !== "inactive") recorder.stop();
      await stopped;
      await sent;
      return new Blob(chunks, { type: hasVideo ? "video/webm" : "audio/webm" });
    },
  };
}

async function capturePcm(stream: MediaStream, onChunk: (chunk: ArrayBuffer) => void): Promise<Capture> {
  const context = new AudioContext({ sampleRate: SAMPLE_RATE_HZ });
  await context.audioWorklet.addModule(workletUrl);
  const source = context.createMediaStreamSource(stream);
  const node = new AudioWorkletNode(context, "pcm", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  node.port.onmessage = (event: MessageEvent<ArrayBuffer>) => onChunk(event.data);
  source.connect(node);
  return {
    media: "pcm",
    hasVideo: false,
    stop: async () => {
      source.disconnect();
      await context.close();
      return null;
    },
  };
}

/** Report a stream's audio level, 0 to 1, in every animation frame; return a function that stops it. */
export function monitorLevel(stream: MediaStream, onLevel: (level: number) => void): () => void {
  if (!stream.getAudioTracks().length) return () => {};
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let request = 0;
  const measure = () => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    // From -60 dB to 0 dB of full scale.
    onLevel(Math.min(1, Math.max(0, 1 + (10 * Math.log10(power + 1e-9)) / 60)));
    request = requestAnimationFrame(measure);
  };
  measure();
  return () => {
    cancelAnimationFrame(request);
    void context.close();
  };
}

export function release(stream: MediaStream | null): void {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
