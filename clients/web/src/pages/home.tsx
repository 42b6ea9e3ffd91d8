/** The home page: uploads, jobs and saved live sessions. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { Job } from "../api";
import { ProgressBar } from "../components/progress-bar";
import { Icon } from "../icons";
import type { SessionSummary } from "../live/sessions";
import { deleteSession, listSessions } from "../live/sessions";
import { usePolling } from "../polling";
import { api, notify, errorMessage } from "../store";
import { strings } from "../i18n/en";
import { formatTime, formatDate, formatSize, formatTimeLeft } from "../format";
import { cancelUpload, retryUpload, startUploads, uploads } from "../uploads";
import { currentStep, remainingSeconds } from "../components/job-steps";

const texts = strings.home;
// Poll often only while a job is in progress.
const BUSY_INTERVAL_S = 1.5;
const IDLE_INTERVAL_S = 15;

export function HomePage() {
  const [jobs, setJobs] = useState<Job[] | null>(null);
  const [next, setNext] = useState("");
  const [problem, setProblem] = useState("");
  const [lips, setLips] = useState("");
  const olderJobs = useRef<Job[]>([]);
  const [refreshes, setRefreshes] = useState(0);

  const poll = useCallback(async () => {
    try {
      const page = await api.value.listJobs();
      // Pages loaded by "Show more" are appended and not refreshed.
      const known = new Set(page.jobs.map((job) => job.id));
      setJobs([...page.jobs, ...olderJobs.current.filter((job) => !known.has(job.id))]);
      if (!olderJobs.current.length) setNext(page.next);
      setProblem("");
      return page.jobs.some(isBusy) ? BUSY_INTERVAL_S : IDLE_INTERVAL_S;
    } catch (error) {
      setProblem(errorMessage(error));
      return IDLE_INTERVAL_S / 3;
    }
  }, []);
  usePolling(poll, [refreshes]);
  const refresh = useCallback(() => setRefreshes((value) => value + 1), []);

  useEffect(() => {
    document.title = `${texts.title} · ${strings.app.name}`;
  }, []);

  const loadMore = async () => {
    const page = await api.value.listJobs(next);
    olderJobs.current = [...olderJobs.current, ...page.jobs];
    setNext(page.next);
    refresh();
  };

  // A job is shown as an upload until its file has been sent.
  const uploading = new Set(uploads.value.map((upload) => upload.jobId));
  const shown = jobs?.filter((job) => !uploading.has(job.id)) ?? [];
  const onFiles = (files: Iterable<File>) => startUploads(files, lips ? { lips } : {}, refresh);
  return (
    <main id="content" tabIndex={-1} class="home">
      <h1>{texts.title}</h1>
      <p class="lead">{texts.lead}</p>
      <DropZone onFiles={onFiles} lips={lips} setLips={setLips} />
      {problem && (
        <p role="alert" class="problem">
          <Icon name="warning" /> {problem}
        </p>
      )}
      <section aria-labelledby="videos">
        <h2 id="videos" class="visually-hidden">
          {texts.jobs}
        </h2>
        <ul class="rows">
          {uploads.value.map((upload) => (
            <UploadRow key={upload.key} upload={upload} refresh={refresh} />
          ))}
          {shown.map((job) => (
            <JobRow key={job.id} job={job} refresh={refresh} />
          ))}
        </ul>
        {jobs && !shown.length && !uploads.value.length && <p class="quiet empty">{texts.none}</p>}
        {!jobs && !problem && <p class="quiet empty">{texts.loading}</p>}
        {next && (
          <button type="button" onClick={() => void loadMore()}>
            {texts.more}
          </button>
        )}
      </section>
      <Sessions />
    </main>
  );
}

function isBusy(job: Job): boolean {
  return job.state === "waiting" || job.state === "running" || (job.state === "awaiting_upload" && Date.now() - Date.parse(job.createdAt) < 60_000);
}

function DropZone({ onFiles, lips, setLips }: { onFiles: (files: Iterable<File>) => void; lips: string; setLips: (value: string) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    // Accept drops anywhere: by default, the browser would replace the page by the file.
    let depth = 0;
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const enter = (event: DragEvent) => {
      if (hasFiles(event) && ++depth) setOver(true);
    };
    const leave = (event: DragEvent) => {
      if (hasFiles(event) && --depth <= 0) setOver(false);
    };
    const over = (event: DragEvent) => event.preventDefault();
    const drop = (event: DragEvent) => {
      event.preventDefault();
      depth = 0;
      setOver(false);
      if (event.dataTransfer?.files.length) onFiles(event.dataTransfer.files);
    };
    const events = Object.entries({ dragenter: enter, dragleave: leave, dragover: over, drop }) as [string, EventListener][];
    for (const [name, listener] of events) window.addEventListener(name, listener);
    return () => {
      for (const [name, listener] of events) window.removeEventListener(name, listener);
    };
  }, [onFiles]);
  return (
    <div class={isOver ? "drop over" : "drop"}>
      <Icon name="upload" />
      <p class="drop-title">{isOver ? texts.dropNow : texts.drop}</p>
      <p class="quiet">{texts.or}</p>
      <button type="button" class="primary" onClick={() => input.current?.click()}>
        {texts.choose}
      </button>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        accept="video/*,audio/*,.mkv,.ts,.mts"
        data-testid="files"
        onChange={(event) => {
          onFiles([...(event.currentTarget.files ?? [])]);
          event.currentTarget.value = "";
        }}
      />
      <p class="quiet hint">{texts.hint(formatSize(api.value.config.maxUploadBytes))}</p>
      <label class="inline">
        {texts.lips}
        <select value={lips} onChange={(event) => setLips(event.currentTarget.value)}>
          <option value="">{texts.lipsChoices.av}</option>
          <option value="video">{texts.lipsChoices.video}</option>
          <option value="none">{texts.lipsChoices.none}</option>
        </select>
      </label>
    </div>
  );
}

function UploadRow({ upload, refresh }: { upload: (typeof uploads.value)[number]; refresh: () => void }) {
  const percent = Math.floor(upload.fraction * 100);
  return (
    <li class="row">
      <span class="row-icon">
        <Icon name="video" />
      </span>
      <div class="row-main">
        <strong class="name" dir="auto">
          {upload.name}
        </strong>
        {upload.problem ? (
          <p role="alert" class="problem">
            {upload.problem}
          </p>
        ) : (
          <>
            <ProgressBar percent={percent} label={texts.uploading(percent)} />
            <p class="quiet">
              {texts.uploading(percent)} · {formatSize(upload.file.size)}
              {upload.leftS !== null && percent < 100 && ` · ${formatTimeLeft(upload.leftS)}`}
            </p>
          </>
        )}
      </div>
      {upload.problem && (
        <button type="button" onClick={() => retryUpload(upload, refresh)}>
          {texts.retry}
        </button>
      )}
      <button type="button" class="plain" aria-label={texts.cancel(upload.name)} title={texts.cancelShort} onClick={() => cancelUpload(upload)}>
        <Icon name="close" />
      </button>
    </li>
  );
}

function JobRow({ job, refresh }: { job: Job; refresh: () => void }) {
  const remove = async () => {
    if (!confirm(texts.confirmRemove(job.name))) return;
    try {
      await api.value.deleteJob(job.id);
      notify(texts.removed(job.name));
    } catch (error) {
      notify(errorMessage(error), "error");
    }
    refresh();
  };
  const isRunning = job.state === "running" || job.state === "waiting";
  const leftS = remainingSeconds(job);
  return (
    <li class="row">
      <span class={`row-icon ${job.state}`}>
        <Icon name={job.state === "done" ? "check" : job.state === "failed" ? "warning" : "video"} />
      </span>
      <div class="row-main">
        <a class="name" dir="auto" href={`#/jobs/${job.id}`}>
          {job.name}
        </a>
        {isRunning && <ProgressBar percent={job.percent} label={job.name} />}
        <p class="quiet">
          <span class={`state ${job.state}`}>{strings.job.states[job.state] ?? job.state}</span>
          {isRunning && ` · ${currentStep(job)}`}
          {isRunning && leftS !== null && ` · ${formatTimeLeft(leftS)}`}
          {job.durationS > 0 && ` · ${formatTime(job.durationS)}`}
          {` · ${formatDate(job.createdAt)}`}
        </p>
        {job.failure && <p class="problem">{job.failure}</p>}
      </div>
      <button type="button" class="plain" aria-label={texts.remove(job.name)} title={strings.job.delete} onClick={() => void remove()}>
        <Icon name="delete" />
      </button>
    </li>
  );
}

function Sessions() {
  const [sessions, setSessions] = useState<SessionSummary[]>([]);
  useEffect(() => {
    listSessions().then(setSessions, () => {});
  }, []);
  if (!sessions.length) return null;
  const remove = async (session: SessionSummary) => {
    if (!confirm(texts.confirmRemove(session.name))) return;
    await deleteSession(session.id);
    setSessions(sessions.filter((each) => each.id !== session.id));
  };
  return (
    <section aria-labelledby="sessions">
      <h2 id="sessions">{texts.sessions}</h2>
      <p class="quiet">{texts.sessionsHint}</p>
      <ul class="rows">
        {sessions.map((session) => (
          <li key={session.id} class="row">
            <span class="row-icon done">
              <Icon name="microphone" />
            </span>
            <div class="row-main">
              <a class="name" dir="auto" href={`#/sessions/${session.id}`}>
                {session.name}
              </a>
              <p class="quiet">{formatTime(session.durationS)}</p>
            </div>
            <button type="button" class="plain" aria-label={texts.remove(session.name)} title={strings.job.delete} onClick={() => void remove(session)}>
              <Icon name="delete" />
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
