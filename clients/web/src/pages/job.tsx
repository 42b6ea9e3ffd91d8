/** A job: its progress, then its transcript. */

import { useCallback, useEffect, useState } from "preact/hooks";
import type { Job, LoadedResult } from "../api";
import { ExportMenu } from "../export";
import { Icon } from "../icons";
import { Editor } from "../player/editor";
import { useAutosave } from "../player/autosave";
import type { Autosave } from "../player/autosave";
import { usePolling } from "../polling";
import type { Result } from "../result";
import { api, saveItem, localVideos, notify, errorMessage } from "../store";
import { strings } from "../i18n/en";
import { formatTime, formatDate } from "../format";
import { JobSteps } from "../components/job-steps";

const texts = strings.job;

interface LoadedJob extends LoadedResult {
  version: number;
  video: string;
  /** Returns a new URL of the video; null if the video plays from memory. */
  renewVideo: (() => Promise<string>) | null;
}

export function JobPage({ id }: { id: string }) {
  const [job, setJob] = useState<Job | null>(null);
  const [problem, setProblem] = useState("");
  const [loaded, setLoaded] = useState<LoadedJob | null>(null);
  const [refreshes, setRefreshes] = useState(0);

  const poll = useCallback(async () => {
    try {
      const current = await api.value.getJob(id);
      setJob(current);
      setProblem("");
      if (current.state === "done") {
        setLoaded(await loadJob(current));
        return 0;
      }
      return current.state === "failed" ? 0 : 1;
    } catch (error) {
      setProblem(errorMessage(error));
      return 5;
    }
  }, [id]);
  usePolling(poll, [id, refreshes]);
  const refresh = () => setRefreshes((value) => value + 1);

  useEffect(() => {
    document.title = `${job?.name ?? ""} · ${strings.app.name}`;
  }, [job?.name]);

  return (
    <main id="content" tabIndex={-1} class="job">
      <div class="title">
        <a class="back" href="#/">
          {strings.app.videos}
        </a>
        <h1 dir="auto">{job?.name ?? texts.loading}</h1>
        {job && (
          <p class="quiet">
            {[job.durationS ? formatTime(job.durationS) : "", formatDate(job.createdAt), job.cost ? texts.cost(job.cost) : job.estimate && texts.estimate(job.estimate)].filter(Boolean).join(" · ")}
          </p>
        )}
      </div>
      {problem && (
        <p role="alert" class="problem">
          <Icon name="warning" /> {problem}
        </p>
      )}
      {job?.state === "failed" && <Failure job={job} refresh={refresh} />}
      {job && job.state !== "failed" && !loaded && <JobSteps job={job} />}
      {loaded && (
        <>
          <DegradedNotice result={loaded.result} />
          <TranscriptEditor
            key={loaded.version}
            id={id}
            name={job?.name ?? ""}
            loaded={loaded}
            reload={() => {
              saveItem(`draft.${id}`, null);
              setLoaded(null);
              refresh();
            }}
          />
        </>
      )}
    </main>
  );
}

async function loadJob(job: Job): Promise<LoadedJob> {
  const local = localVideos.get(job.id);
  const renewVideo = local ? null : () => api.value.getVideoUrl(job.id);
  const [result, video] = await Promise.all([api.value.getResult(job.id, job.version), local ? URL.createObjectURL(local) : renewVideo!()]);
  return { ...result, version: job.version, video, renewVideo };
}

function TranscriptEditor({ id, name, loaded, reload }: { id: string; name: string; loaded: LoadedJob; reload: () => void }) {
  const autosave = useAutosave(id, loaded, loaded.version);
  const exportFile = useCallback(
    async (format: Parameters<typeof api.value.exportResult>[1]) => {
      // The server exports the saved version.
      await autosave.save();
      const { version } = await api.value.getJob(id);
      return api.value.exportResult(id, format, version);
    },
    [id, autosave.save],
  );
  return (
    <Editor
      result={loaded.result}
      history={autosave.history}
      onHistory={autosave.onHistory}
      video={loaded.video}
      renewVideo={loaded.renewVideo}
      onSave={() => void autosave.save()}
      tools={
        <>
          <SaveStatus autosave={autosave} reload={reload} />
          <ExportMenu name={name} exportFile={exportFile} />
        </>
      }
    />
  );
}

function SaveStatus({ autosave, reload }: { autosave: Autosave; reload: () => void }) {
  const text = { saved: strings.save.saved, saving: strings.save.saving, unsaved: strings.save.unsaved, failed: strings.save.failed, conflict: strings.save.conflict }[autosave.state];
  const isProblem = autosave.state === "failed" || autosave.state === "conflict";
  return (
    <div class={isProblem ? "save problem" : "save quiet"} role="status" data-state={autosave.state}>
      <span title={autosave.problem || strings.save.version(autosave.version)}>{text}</span>
      {autosave.state === "failed" && (
        <button type="button" onClick={() => void autosave.save()}>
          {strings.save.retry}
        </button>
      )}
      {autosave.state === "conflict" && (
        <>
          <button type="button" onClick={reload}>
            {strings.save.theirs}
          </button>
          <button type="button" onClick={() => void autosave.overwrite()}>
            {strings.save.mine}
          </button>
        </>
      )}
    </div>
  );
}

function Failure({ job, refresh }: { job: Job; refresh: () => void }) {
  const retry = async () => {
    try {
      await api.value.retryJob(job.id);
      refresh();
    } catch (error) {
      notify(errorMessage(error), "error");
    }
  };
  return (
    <section class="card failure" role="alert">
      <h2>
        <Icon name="warning" /> {texts.failed}
      </h2>
      <p dir="auto">{job.failure}</p>
      {texts.steps[job.stage] && <p class="quiet">{texts.failedAt(texts.steps[job.stage]!)}</p>}
      <button type="button" class="primary" onClick={() => void retry()}>
        {texts.again}
      </button>
    </section>
  );
}

function DegradedNotice({ result }: { result: Result }) {
  if (!result.is_degraded) return null;
  const failures = Object.entries(result.sources).flatMap(([source, report]) => report.failures.map((failure) => ({ source: strings.sources[source] ?? source, ...failure })));
  return (
    <details class="card degraded">
      <summary>
        <Icon name="warning" /> {texts.degraded}
      </summary>
      <ul>
        {failures.map((failure, index) => (
          <li key={index} dir="auto">
            {failure.start_s === undefined ? texts.sourceFailure(failure.source, failure.reason) : texts.partialFailure(failure.source, formatTime(failure.start_s), formatTime(failure.end_s ?? failure.start_s), failure.reason)}
          </li>
        ))}
      </ul>
    </details>
  );
}

