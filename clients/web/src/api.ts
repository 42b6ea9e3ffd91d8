/** The HTTP API, in one place: whatever it says is turned into the page's own types here. */

import { speakerName } from "./captions";
import type { Result, Transcript } from "./result";
import type { SignInPages } from "./signin";
import { strings } from "./i18n/en";

/** What the page is told at its start by `config.json` beside it. */
export interface Config {
  /** Where the HTTP API is, without a slash at its end. */
  api: string;
  /** Where live captions are; empty: there are none. */
  live: string;
  /** Whether calls need a token. */
  auth: "none" | "token";
  /** Where people get their tokens; null: they have one. */
  signIn: SignInPages | null;
  maxUploadBytes: number;
}

export type JobState = "awaiting_upload" | "waiting" | "running" | "done" | "failed";

export interface Step {
  name: string;
  state: "waiting" | "running" | "done" | "failed";
  /** 0 to 100. */
  percent: number;
}

export interface Job {
  id: string;
  name: string;
  state: JobState;
  createdAt: string;
  sizeBytes: number;
  durationS: number;
  /** 0 to 100, of the whole. */
  percent: number;
  /** Where it is, or where it failed. */
  stage: string;
  steps: Step[];
  failure: string;
  isDegraded: boolean;
  version: number;
  estimate: string;
  cost: string;
}

export type Format = "vtt" | "srt" | "ttml" | "txt" | "json";

/** An answer that is no success: RFC 9457's detail, or what stands for it. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export interface UploadTarget {
  jobId: string;
  url: string;
  fields: Record<string, string>;
}

export interface LoadedResult {
  result: Result;
  names: Record<string, string>;
}

export interface SegmentCorrection {
  id: string;
  text?: string;
  person?: string;
  delete?: true;
}

/** What the API answers a result as that is too large for an answer: where it lies. */
const ADDRESS_TYPE = "application/vnd.gorggle.address+json";
const RETRIES = 3;
const REQUEST_LIMIT_MS = 30_000;

export class Api {
  token = "";
  onUnauthorized: () => void = () => {};

  constructor(readonly config: Config) {}

  async jobs(cursor = ""): Promise<{ jobs: Job[]; next: string }> {
    const query = cursor ? `?next=${encodeURIComponent(cursor)}` : "";
    const page = await this.json("GET", `/jobs${query}`);
    return { jobs: list(page.jobs).map(parseJob), next: text(page.next) };
  }

  async job(id: string): Promise<Job> {
    return parseJob(await this.json("GET", jobPath(id)));
  }

  async deleteJob(id: string): Promise<void> {
    await this.call("DELETE", jobPath(id));
  }

  async retryJob(id: string): Promise<void> {
    await this.call("POST", `${jobPath(id)}/retry`);
  }

  /** Make a job, and learn where its video goes. */
  async createUpload(file: { name: string; size: number; type: string }, options: Record<string, string>): Promise<UploadTarget> {
    const body = { name: file.name.slice(-120), size_bytes: file.size, content_type: mediaType(file.name, file.type), options };
    const answer = await this.json("POST", "/uploads", body, { "idempotency-key": crypto.randomUUID() });
    const upload = record(answer.upload);
    return { jobId: text(answer.job_id), url: text(upload.url), fields: record(upload.fields) as Record<string, string> };
  }

  /** A version of a job's transcript, with its corrections. */
  async result(id: string, version: number): Promise<LoadedResult> {
    return parseResult(record(await (await this.resultIn(id, "json", version)).json()));
  }

  /**
   * Keep corrections as a new version: whatever differs between the two transcripts.
   *
   * ApiError 409: somebody else made a version since `base`.
   */
  async save(id: string, base: number, before: Transcript, after: Transcript): Promise<LoadedResult & { version: number }> {
    const answer = await this.json("PUT", `${jobPath(id)}/result`, { base_version: base, ...diffTranscripts(before, after) });
    const version = Number(answer.version);
    // What is too large to be answered is fetched.
    return { version, ...(answer.result === undefined ? await this.result(id, version) : parseResult(record(answer.result))) };
  }

  /** A file of a job's transcript, made by the server. */
  async file(id: string, format: Format, version: number): Promise<Blob> {
    return (await this.resultIn(id, format, version)).blob();
  }

  /** An address that plays the job's video for a while; empty where there is none any more. */
  async videoUrl(id: string): Promise<string> {
    try {
      return text((await this.json("GET", `${jobPath(id)}/video`)).url);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return "";
      throw error;
    }
  }

  private async resultIn(id: string, format: Format, version: number): Promise<Response> {
    const response = await this.call("GET", `${jobPath(id)}/result?format=${format}&version=${version}&inline=true`);
    if (!response.headers.get("content-type")?.startsWith(ADDRESS_TYPE)) return response;
    // Too large to be answered: this is the address where it lies. It is shown no token; who has it may read.
    return request(text(record(await response.json()).url), { credentials: "omit" });
  }

  private async json(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Record<string, unknown>> {
    return record(await (await this.call(method, path, body, headers)).json());
  }

  private async call(method: string, path: string, body?: unknown, further: Record<string, string> = {}): Promise<Response> {
    const headers = { ...further };
    if (this.token) headers.authorization = `Bearer ${this.token}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    try {
      return await request(this.config.api + path, { method, headers, body: body === undefined ? null : JSON.stringify(body), cache: "no-store", credentials: "omit" });
    } catch (error) {
      // API Gateway says 401 where there is no token and 403 where it is wrong.
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) this.onUnauthorized();
      throw error;
    }
  }
}

/** Ask, and where nothing is changed by it ask again a few times; ApiError where there is no success. */
async function request(url: string, request: RequestInit): Promise<Response> {
  for (let attempt = 0; ; attempt++) {
    const isLast = (request.method ?? "GET") !== "GET" || attempt === RETRIES - 1;
    let response: Response;
    try {
      response = await fetch(url, { ...request, signal: AbortSignal.timeout(REQUEST_LIMIT_MS) });
    } catch {
      if (isLast) throw new ApiError(0, strings.problems.offline);
      await delay(300 * 2 ** attempt);
      continue;
    }
    if (response.ok) return response;
    if (isLast || ![429, 502, 503, 504].includes(response.status)) throw await parseProblem(response);
    await delay(300 * 2 ** attempt);
  }
}

/** Read `config.json`. */
export async function loadConfig(): Promise<Config> {
  const response = await fetch("./config.json", { cache: "no-store" });
  if (!response.ok) throw await parseProblem(response);
  const given = record(await response.json());
  const origin = location.origin.replace(/^http/, "ws");
  return {
    api: new URL(text(given.api) || ".", location.href).href.replace(/\/+$/, ""),
    live: text(given.live).startsWith("/") ? origin + text(given.live) : text(given.live),
    // A token of the API's own or a JWT: both are shown alike.
    signIn: text(given.sign_in) ? { url: text(given.sign_in), clientId: text(given.client_id) } : null,
    auth: given.auth === undefined || given.auth === "none" ? "none" : "token",
    maxUploadBytes: Number(given.max_upload_bytes ?? 5 * 2 ** 30),
  };
}

/** Send a file with a form, as S3 takes it; tells how far it is, 0 to 1. Abort with `signal`. */
export function upload(target: UploadTarget, file: Blob, tell: (share: number) => void, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    for (const [name, value] of Object.entries(target.fields)) form.append(name, value);
    form.append("file", file);
    // fetch() tells nothing about how far an upload is.
    const request = new XMLHttpRequest();
    request.open("POST", target.url);
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) tell(event.loaded / event.total);
    };
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve();
      else reject(new ApiError(request.status, s3Reason(request.responseText) || strings.problems.unexpected(request.status)));
    };
    request.onerror = () => reject(new ApiError(0, strings.problems.offline));
    request.onabort = () => reject(new DOMException("aborted", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

// --------------------------------------------------------------------------------------------------------- reading

function parseJob(value: unknown): Job {
  const job = record(value);
  const failure = record(job.failure);
  const state = text(job.state) as JobState;
  const stage = text(job.stage);
  return {
    id: text(job.job_id),
    name: text(job.name),
    state,
    createdAt: text(job.created_at),
    sizeBytes: Number(job.size_bytes ?? 0),
    durationS: Number(record(job.media).duration_s ?? 0),
    percent: Number(job.percent ?? 0),
    stage,
    steps: list(job.steps).map(parseStep),
    failure: text(failure.reason),
    isDegraded: job.is_degraded === true,
    version: Number(job.result_version ?? 0),
    estimate: formatMoney(job.estimate),
    cost: formatMoney(job.cost),
  };
}

function parseStep(value: unknown): Step {
  const step = record(value);
  return { name: text(step.name), state: text(step.state) as Step["state"], percent: Number(step.percent ?? 0) };
}

function formatMoney(value: unknown): string {
  const { total, currency } = record(value);
  if (typeof total !== "number" || typeof currency !== "string") return "";
  return new Intl.NumberFormat(undefined, { style: "currency", currency, maximumSignificantDigits: 2 }).format(total);
}

function parseResult(document: Record<string, unknown>): LoadedResult {
  return { result: document as unknown as Result, names: record(document.names) as Record<string, string> };
}

/** What the API must be told so that `before` becomes `after`. */
export function diffTranscripts(before: Transcript, after: Transcript): { segments: SegmentCorrection[]; names: Record<string, string> } {
  const now = new Map(after.segments.map((segment) => [segment.id, segment]));
  const segments: SegmentCorrection[] = [];
  for (const old of before.segments) {
    const segment = now.get(old.id);
    if (!segment) {
      segments.push({ id: old.id, delete: true });
      continue;
    }
    const change: SegmentCorrection = { id: old.id };
    if (segment.text !== old.text) change.text = segment.text;
    if (segment.person !== old.person) change.person = segment.person;
    if (Object.keys(change).length > 1) segments.push(change);
  }
  const names: Record<string, string> = {};
  for (const person of new Set([...Object.keys(before.names), ...Object.keys(after.names)])) {
    // A name cannot be taken back, but it can be what it would be without one.
    if (before.names[person] !== after.names[person]) names[person] = speakerName(after, person);
  }
  return { segments, names };
}

const TYPES: Record<string, string> = {
  ...{ mp4: "video/mp4", m4v: "video/x-m4v", mov: "video/quicktime", "3gp": "video/3gpp", "3g2": "video/3gpp2", webm: "video/webm", mkv: "video/x-matroska" },
  ...{ ts: "video/mp2t", mts: "video/mp2t", m2ts: "video/mp2t", mpg: "video/mpeg", mpeg: "video/mpeg", avi: "video/x-msvideo", flv: "video/x-flv" },
  ...{ wmv: "video/x-ms-wmv", asf: "video/x-ms-asf", ogv: "video/ogg", wav: "audio/wav", mp3: "audio/mpeg", m4a: "audio/mp4", flac: "audio/flac" },
  ...{ aac: "audio/aac", ogg: "audio/ogg", oga: "audio/ogg", opus: "audio/ogg", weba: "audio/webm", mka: "audio/x-matroska", wma: "audio/x-ms-wma" },
  ...{ amr: "audio/amr", aif: "audio/aiff", aiff: "audio/aiff" },
};

/** The type that the API takes a file as; empty: it is no medium. What a file really is, the server finds out. */
export function mediaType(name: string, type: string): string {
  const known = TYPES[/\.([a-z0-9]+)$/i.exec(name)?.[1]?.toLowerCase() ?? ""];
  if (known) return known;
  const bare = type.split(";")[0]!.trim().toLowerCase();
  if (Object.values(TYPES).includes(bare)) return bare;
  return /^(video|audio)\//.test(bare) ? "video/mp4" : "";
}

async function parseProblem(response: Response): Promise<ApiError> {
  let detail = "";
  try {
    const problem = record(await response.json());
    detail = text(problem.detail) || text(problem.message);
  } catch {
    // Not every answer is one of ours.
  }
  return new ApiError(response.status, detail || strings.problems.unexpected(response.status));
}

function s3Reason(answer: string): string {
  return new DOMParser().parseFromString(answer, "application/xml").querySelector("Error > Message")?.textContent ?? "";
}

function jobPath(id: string): string {
  return `/jobs/${encodeURIComponent(id)}`;
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
