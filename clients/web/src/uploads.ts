/** Uploads in progress. They belong to no component, so that navigation does not abort them. */

import { signal } from "@preact/signals";
import { mediaType, uploadFile } from "./api";
import { api, localVideos, notify, errorMessage } from "./store";
import { strings } from "./i18n/en";
import { EtaEstimator, formatSize } from "./format";

export interface Upload {
  key: number;
  file: Blob;
  name: string;
  options: Record<string, string>;
  /** 0 to 1. */
  fraction: number;
  leftS: number | null;
  problem: string;
  jobId: string;
  abort: () => void;
}

export const uploads = signal<Upload[]>([]);

// Browsers open at most six connections to a host over HTTP/1.1; some must stay free for the API.
const MAX_CONCURRENT_UPLOADS = 3;

let lastKey = 0;
let running = 0;
const queue: (() => void)[] = [];

/** Validate files and upload them, a few at a time; calls `onDone` after each upload. */
export function startUploads(files: Iterable<File>, options: Record<string, string>, onDone: (jobId: string) => void): void {
  for (const file of files) {
    const problem = validateFile(file, file.name);
    if (problem) notify(problem, "error");
    else startUpload(file, file.name, options, onDone);
  }
}

export function startUpload(file: Blob, name: string, options: Record<string, string>, onDone: (jobId: string) => void): void {
  const key = ++lastKey;
  const controller = new AbortController();
  uploads.value = [...uploads.value, { key, file, name, options, fraction: 0, leftS: null, problem: "", jobId: "", abort: () => controller.abort() }];
  const run = async () => {
    running++;
    try {
      await sendFile(key, file, name, options, controller.signal, onDone);
    } finally {
      running--;
      queue.shift()?.();
    }
  };
  if (running < MAX_CONCURRENT_UPLOADS) void run();
  else queue.push(() => void run());
}

export function retryUpload(failed: Upload, onDone: (jobId: string) => void): void {
  removeUpload(failed.key);
  startUpload(failed.file, failed.name, failed.options, onDone);
}

export function cancelUpload(upload: Upload): void {
  upload.abort();
  removeUpload(upload.key);
}

async function sendFile(key: number, file: Blob, name: string, options: Record<string, string>, signal: AbortSignal, onDone: (jobId: string) => void): Promise<void> {
  if (signal.aborted) return;
  const estimator = new EtaEstimator();
  let jobId = "";
  try {
    const target = await api.value.createUpload({ name, size: file.size, type: file.type }, options);
    jobId = target.jobId;
    updateUpload(key, { jobId });
    const onProgress = (fraction: number) => updateUpload(key, { fraction, leftS: estimator.update(fraction, performance.now() / 1000) });
    await uploadFile(target, file, onProgress, signal);
    localVideos.set(jobId, file);
    removeUpload(key);
    onDone(jobId);
  } catch (error) {
    // A job without its video is useless.
    if (jobId) api.value.deleteJob(jobId).catch(() => {});
    if (signal.aborted) return;
    updateUpload(key, { problem: strings.home.failedUpload(name, errorMessage(error)) });
  }
}

function validateFile(file: Blob, name: string): string {
  const maxBytes = api.value.config.maxUploadBytes;
  if (file.size === 0) return strings.home.empty(name);
  if (file.size > maxBytes) return strings.home.tooLarge(name, formatSize(file.size), formatSize(maxBytes));
  if (!mediaType(name, file.type)) return strings.home.wrongType(name);
  return "";
}

function updateUpload(key: number, values: Partial<Upload>): void {
  uploads.value = uploads.value.map((each) => (each.key === key ? { ...each, ...values } : each));
}

function removeUpload(key: number): void {
  uploads.value = uploads.value.filter((each) => each.key !== key);
}

window.addEventListener("beforeunload", (event) => {
  if (uploads.value.some((each) => !each.problem)) event.preventDefault();
});
