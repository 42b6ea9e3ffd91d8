/** Uploads that are going on: they live here, so that leaving the list does not end them. */

import { signal } from "@preact/signals";
import { mediaType, upload } from "./api";
import { api, localVideos, notify, errorMessage } from "./store";
import { strings } from "./i18n/en";
import { EtaEstimator, formatSize } from "./format";

export interface Upload {
  key: number;
  file: Blob;
  name: string;
  options: Record<string, string>;
  /** 0 to 1. */
  share: number;
  leftS: number | null;
  problem: string;
  jobId: string;
  abort: () => void;
}

export const uploads = signal<Upload[]>([]);

// Browsers send six requests at once to one place; the page's own must get through.
const MOST_AT_ONCE = 3;

let lastKey = 0;
let running = 0;
const queue: (() => void)[] = [];

/** Check files and begin to send them, a few at a time; `onDone` hears of each that arrived. */
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
  uploads.value = [...uploads.value, { key, file, name, options, share: 0, leftS: null, problem: "", jobId: "", abort: () => controller.abort() }];
  const run = async () => {
    running++;
    try {
      await send(key, file, name, options, controller.signal, onDone);
    } finally {
      running--;
      queue.shift()?.();
    }
  };
  if (running < MOST_AT_ONCE) void run();
  else queue.push(() => void run());
}

export function retryUpload(failed: Upload, onDone: (jobId: string) => void): void {
  removeUpload(failed.key);
  startUpload(failed.file, failed.name, failed.options, onDone);
}

export function cancelUpload(given: Upload): void {
  given.abort();
  removeUpload(given.key);
}

async function send(key: number, file: Blob, name: string, options: Record<string, string>, signal: AbortSignal, onDone: (jobId: string) => void): Promise<void> {
  if (signal.aborted) return;
  const estimate = new EtaEstimator();
  let jobId = "";
  try {
    const target = await api.value.createUpload({ name, size: file.size, type: file.type }, options);
    jobId = target.jobId;
    updateUpload(key, { jobId });
    const tell = (share: number) => updateUpload(key, { share, leftS: estimate.update(share, performance.now() / 1000) });
    await upload(target, file, tell, signal);
    localVideos.set(jobId, file);
    removeUpload(key);
    onDone(jobId);
  } catch (error) {
    // A job whose video will not come is of no use.
    if (jobId) api.value.deleteJob(jobId).catch(() => {});
    if (signal.aborted) return;
    updateUpload(key, { problem: strings.home.failedUpload(name, errorMessage(error)) });
  }
}

function validateFile(file: Blob, name: string): string {
  const most = api.value.config.maxUploadBytes;
  if (file.size === 0) return strings.home.empty(name);
  if (file.size > most) return strings.home.tooLarge(name, formatSize(file.size), formatSize(most));
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
