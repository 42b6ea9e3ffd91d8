/** The list: drop videos, see how far each one is. */

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

const words = strings.home;
// Job lists are long, changes are few: often while something goes on, seldom otherwise.
const BUSY_S = 1.5;
const QUIET_S = 15;

export function HomePage() {
  const [jobs, setJobs] = useState<Job[] | null>(null);
  const [next, setNext] = useState("");
  const [problem, setProblem] = useState("");
  const [lips, setLips] = useState("");
  const further = useRef<Job[]>([]);
  const [turn, setTurn] = useState(0);

  const ask = useCallback(async () => {
    try {
      const page = await api.value.jobs();
      // An upload shows its own line until it has arrived.
      const known = new Set(page.jobs.map((job) => job.id));
      setJobs([...page.jobs, ...further.current.filter((job) => !known.has(job.id))]);
      if (!further.current.length) setNext(page.next);
      setProblem("");
      return page.jobs.some(isBusy) ? BUSY_S : QUIET_S;
    } catch (error) {
      setProblem(errorMessage(error));
      return QUIET_S / 3;
    }
  }, []);
  usePolling(ask, [turn]);
  const again = useCallback(() => setTurn((value) => value + 1), []);

  useEffect(() => {
    document.title = `${words.title} · ${strings.app.name}`;
  }, []);

  const more = async () => {
    const page = await api.value.jobs(next);
    further.current = [...further.current, ...page.jobs];
    setNext(page.next);
    again();
  };

  const sending = new Set(uploads.value.map((each) => each.jobId));
  const shown = jobs?.filter((job) => !sending.has(job.id)) ?? [];
  const take = (files: Iterable<File>) => startUploads(files, lips ? { lips } : {}, again);
  return (
    <main id="content" tabIndex={-1} class="home">
      <h1>{words.title}</h1>
      <p class="lead">{words.lead}</p>
      <DropZone take={take} lips={lips} setLips={setLips} />
      {problem && (
        <p role="alert" class="problem">
          <Icon name="warning" /> {problem}
        </p>
      )}
      <section aria-labelledby="videos">
        <h2 id="videos" class="hidden">
          {words.jobs}
        </h2>
        <ul class="rows">
          {uploads.value.map((each) => (
            <UploadRow key={each.key} upload={each} again={again} />
          ))}
          {shown.map((job) => (
            <JobRow key={job.id} job={job} again={again} />
          ))}
        </ul>
        {jobs && !shown.length && !uploads.value.length && <p class="quiet empty">{words.none}</p>}
        {!jobs && !problem && <p class="quiet empty">{words.loading}</p>}
        {next && (
          <button type="button" onClick={() => void more()}>
            {words.more}
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

function DropZone({ take, lips, setLips }: { take: (files: Iterable<File>) => void; lips: string; setLips: (value: string) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    // A file that misses the target must not take the place of the page.
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
      if (event.dataTransfer?.files.length) take(event.dataTransfer.files);
    };
    const events = Object.entries({ dragenter: enter, dragleave: leave, dragover: over, drop }) as [string, EventListener][];
    for (const [name, listener] of events) window.addEventListener(name, listener);
    return () => {
      for (const [name, listener] of events) window.removeEventListener(name, listener);
    };
  }, [take]);
  return (
    <div class={isOver ? "drop over" : "drop"}>
      <Icon name="upload" />
      <p class="drop-title">{isOver ? words.dropNow : words.drop}</p>
      <p class="quiet">{words.or}</p>
      <button type="button" class="primary" onClick={() => input.current?.click()}>
        {words.choose}
      </button>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        accept="video/*,audio/*,.mkv,.ts,.mts"
        data-testid="files"
        onChange={(event) => {
          take([...(event.currentTarget.files ?? [])]);
          event.currentTarget.value = "";
        }}
      />
      <p class="quiet hint">{words.hint(formatSize(api.value.config.maxUploadBytes))}</p>
      <label class="inline">
        {words.lips}
        <select value={lips} onChange={(event) => setLips(event.currentTarget.value)}>
          <option value="">{words.lipsChoices.av}</option>
          <option value="video">{words.lipsChoices.video}</option>
          <option value="none">{words.lipsChoices.none}</option>
        </select>
      </label>
    </div>
  );
}

function UploadRow({ upload, again }: { upload: (typeof uploads.value)[number]; again: () => void }) {
  const percent = Math.floor(upload.share * 100);
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
            <ProgressBar percent={percent} label={words.uploading(percent)} />
            <p class="quiet">
              {words.uploading(percent)} · {formatSize(upload.file.size)}
              {upload.leftS !== null && percent < 100 && ` · ${formatTimeLeft(upload.leftS)}`}
            </p>
          </>
        )}
      </div>
      {upload.problem && (
        <button type="button" onClick={() => retryUpload(upload, again)}>
          {words.retry}
        </button>
      )}
      <button type="button" class="plain" aria-label={words.cancel(upload.name)} title={words.cancelShort} onClick={() => cancelUpload(upload)}>
        <Icon name="close" />
      </button>
    </li>
  );
}

function JobRow({ job, again }: { job: Job; again: () => void }) {
  const remove = async () => {
    if (!confirm(words.removeAsk(job.name))) return;
    try {
      await api.value.deleteJob(job.id);
      notify(words.removed(job.name));
    } catch (error) {
      notify(errorMessage(error), "error");
    }
    again();
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
      <button type="button" class="plain" aria-label={words.remove(job.name)} title={strings.job.delete} onClick={() => void remove()}>
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
    if (!confirm(words.removeAsk(session.name))) return;
    await deleteSession(session.id);
    setSessions(sessions.filter((each) => each.id !== session.id));
  };
  return (
    <section aria-labelledby="sessions">
      <h2 id="sessions">{words.sessions}</h2>
      <p class="quiet">{words.sessionsHint}</p>
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
            <button type="button" class="plain" aria-label={words.remove(session.name)} title={strings.job.delete} onClick={() => void remove(session)}>
              <Icon name="delete" />
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
