/** Camera and microphone: which there are, their picture, their level, and the pieces of media that they give. */

import workletUrl from "./pcm.worklet.ts?worker&url";

export interface Devices {
  cameras: MediaDeviceInfo[];
  microphones: MediaDeviceInfo[];
}

/** Whether this page may ask for devices at all. */
export const canCapture = typeof navigator.mediaDevices?.getUserMedia === "function";

// Enough for a mouth of 96 pixels, and little enough for a slow line.
const VIDEO_BITS_PER_S = 1_500_000;
const SLICE_MS = 200;
const SAMPLE_RATE_HZ = 16_000;

/** What is there. Names are empty until the browser's permission was given once. */
export async function listDevices(): Promise<Devices> {
  const all = await navigator.mediaDevices.enumerateDevices();
  const of = (kind: MediaDeviceKind) => all.filter((device) => device.kind === kind);
  return { cameras: of("videoinput"), microphones: of("audioinput") };
}

/** Ask for devices by their ids; "": the standard one, "none": none. */
export function openDevices(camera: string, microphone: string): Promise<MediaStream> {
  const chosen = (id: string) => (id ? { deviceId: { exact: id } } : {});
  return navigator.mediaDevices.getUserMedia({
    video: camera === "none" ? false : { ...chosen(camera), width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 25, max: 30 } },
    audio: microphone === "none" ? false : { ...chosen(microphone), echoCancellation: false, noiseSuppression: false, autoGainControl: true },
  });
}

export interface Capture {
  media: "webm" | "pcm";
  /** Whether the pictures are sent too. */
  hasVideo: boolean;
  /** Ends it; resolves with the recording when its last piece was given, null where none is made. */
  stop: () => Promise<Blob | null>;
}

/** What can be sent of a stream: WebM where the browser can write it, else the sound alone as samples. */
export function startCapture(stream: MediaStream, take: (piece: ArrayBuffer) => void): Promise<Capture> {
  const hasVideo = stream.getVideoTracks().length > 0;
  const type = (hasVideo ? ["video/webm;codecs=vp8,opus", "video/webm;codecs=vp9,opus", "video/webm"] : ["audio/webm;codecs=opus", "audio/webm"]).find((each) => window.MediaRecorder?.isTypeSupported(each));
  return type ? Promise.resolve(recordWebm(stream, type, hasVideo, take)) : capturePcm(stream, take);
}

function recordWebm(stream: MediaStream, mimeType: string, hasVideo: boolean, take: (piece: ArrayBuffer) => void): Capture {
  // After a lost reader, reading goes on at a key frame: with one every two seconds little is read twice.
  const options = { mimeType, videoBitsPerSecond: VIDEO_BITS_PER_S, videoKeyFrameIntervalDuration: 2000 };
  const recorder = new MediaRecorder(stream, options);
  const pieces: Blob[] = [];
  let sent = Promise.resolve();
  recorder.ondataavailable = (event) => {
    if (!event.data.size) return;
    pieces.push(event.data);
    sent = sent.then(async () => take(await event.data.arrayBuffer()));
  };
  const ended = new Promise<void>((resolve) => (recorder.onstop = () => resolve()));
  recorder.start(SLICE_MS);
  return {
    media: "webm",
    hasVideo,
    stop: async () => {
      if (recorder.state !== "inactive") recorder.stop();
      await ended;
      await sent;
      return new Blob(pieces, { type: hasVideo ? "video/webm" : "audio/webm" });
    },
  };
}

async function capturePcm(stream: MediaStream, take: (piece: ArrayBuffer) => void): Promise<Capture> {
  const context = new AudioContext({ sampleRate: SAMPLE_RATE_HZ });
  await context.audioWorklet.addModule(workletUrl);
  const source = context.createMediaStreamSource(stream);
  const node = new AudioWorkletNode(context, "pcm", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  node.port.onmessage = (event: MessageEvent<ArrayBuffer>) => take(event.data);
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

/** How loud a stream is, 0 to 1, each time a picture is drawn; gives what ends it. */
export function monitorLevel(stream: MediaStream, tell: (level: number) => void): () => void {
  if (!stream.getAudioTracks().length) return () => {};
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let request = 0;
  const look = () => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    // From -60 dB to 0 dB of full scale.
    tell(Math.min(1, Math.max(0, 1 + (10 * Math.log10(power + 1e-9)) / 60)));
    request = requestAnimationFrame(look);
  };
  look();
  return () => {
    cancelAnimationFrame(request);
    void context.close();
  };
}

export function release(stream: MediaStream | null): void {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
