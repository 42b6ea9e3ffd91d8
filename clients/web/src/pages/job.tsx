/** One job: its progress, then its transcript. */

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

const words = strings.job;

interface Loaded extends LoadedResult {
  version: number;
  video: string;
  /** Asks for another address of the video; null where it plays from this page's own memory. */
  renewVideo: (() => Promise<string>) | null;
}

export function JobPage({ id }: { id: string }) {
  const [job, setJob] = useState<Job | null>(null);
  const [problem, setProblem] = useState("");
  const [loaded, setLoaded] = useState<Loaded | null>(null);
  const [turn, setTurn] = useState(0);

  const ask = useCallback(async () => {
    try {
      const found = await api.value.job(id);
      setJob(found);
      setProblem("");
      if (found.state === "done") {
        setLoaded(await load(found));
        return 0;
      }
      return found.state === "failed" ? 0 : 1;
    } catch (error) {
      setProblem(errorMessage(error));
      return 5;
    }
  }, [id]);
  usePolling(ask, [id, turn]);
  const again = () => setTurn((value) => value + 1);

  useEffect(() => {
    document.title = `${job?.name ?? ""} · ${strings.app.name}`;
  }, [job?.name]);

  return (
    <main id="content" tabIndex={-1} class="job">
      <div class="title">
        <a class="back" href="#/">
          {strings.app.videos}
        </a>
        <h1 dir="auto">{job?.name ?? words.loading}</h1>
        {job && (
          <p class="quiet">
            {[job.durationS ? formatTime(job.durationS) : "", formatDate(job.createdAt), job.cost ? words.cost(job.cost) : job.estimate && words.estimate(job.estimate)].filter(Boolean).join(" · ")}
          </p>
        )}
      </div>
      {problem && (
        <p role="alert" class="problem">
          <Icon name="warning" /> {problem}
        </p>
      )}
      {job?.state === "failed" && <Failure job={job} again={again} />}
      {job && job.state !== "failed" && !loaded && <JobSteps job={job} />}
      {loaded && (
        <>
          <Degraded result={loaded.result} />
          <TranscriptEditor
            key={loaded.version}
            id={id}
            name={job?.name ?? ""}
            loaded={loaded}
            reload={() => {
              saveItem(`draft.${id}`, null);
              setLoaded(null);
              again();
            }}
          />
        </>
      )}
    </main>
  );
}

async function load(job: Job): Promise<Loaded> {
  const local = localVideos.get(job.id);
  const renewVideo = local ? null : () => api.value.videoUrl(job.id);
  const [result, video] = await Promise.all([api.value.result(job.id, job.version), local ? URL.createObjectURL(local) : renewVideo!()]);
  return { ...result, version: job.version, video, renewVideo };
}

function TranscriptEditor({ id, name, loaded, reload }: { id: string; name: string; loaded: Loaded; reload: () => void }) {
  const saving = useAutosave(id, loaded, loaded.version);
  const make = useCallback(
    async (format: Parameters<typeof api.value.file>[1]) => {
      // Files are made of what the server has.
      await saving.save();
      const { version } = await api.value.job(id);
      return api.value.file(id, format, version);
    },
    [id, saving.save],
  );
  return (
    <Editor
      result={loaded.result}
      history={saving.history}
      onHistory={saving.onHistory}
      video={loaded.video}
      renewVideo={loaded.renewVideo}
      onSave={() => void saving.save()}
      tools={
        <>
          <SaveState saving={saving} reload={reload} />
          <ExportMenu name={name} make={make} />
        </>
      }
    />
  );
}

function SaveState({ saving, reload }: { saving: Autosave; reload: () => void }) {
  const text = { saved: strings.save.saved, saving: strings.save.saving, unsaved: strings.save.unsaved, failed: strings.save.failed, conflict: strings.save.conflict }[saving.state];
  const isBad = saving.state === "failed" || saving.state === "conflict";
  return (
    <div class={isBad ? "save problem" : "save quiet"} role="status" data-state={saving.state}>
      <span title={saving.problem || strings.save.version(saving.version)}>{text}</span>
      {saving.state === "failed" && (
        <button type="button" onClick={() => void saving.save()}>
          {strings.save.retry}
        </button>
      )}
      {saving.state === "conflict" && (
        <>
          <button type="button" onClick={reload}>
            {strings.save.theirs}
          </button>
          <button type="button" onClick={() => void saving.keepMine()}>
            {strings.save.mine}
          </button>
        </>
      )}
    </div>
  );
}

function Failure({ job, again }: { job: Job; again: () => void }) {
  const retry = async () => {
    try {
      await api.value.retryJob(job.id);
      again();
    } catch (error) {
      notify(errorMessage(error), "error");
    }
  };
  return (
    <section class="card failure" role="alert">
      <h2>
        <Icon name="warning" /> {words.failed}
      </h2>
      <p dir="auto">{job.failure}</p>
      {words.steps[job.stage] && <p class="quiet">{words.failedAt(words.steps[job.stage]!)}</p>}
      <button type="button" class="primary" onClick={() => void retry()}>
        {words.again}
      </button>
    </section>
  );
}

function Degraded({ result }: { result: Result }) {
  if (!result.is_degraded) return null;
  const failures = Object.entries(result.sources).flatMap(([source, state]) => state.failures.map((failure) => ({ source: strings.sources[source] ?? source, ...failure })));
  return (
    <details class="card degraded">
      <summary>
        <Icon name="warning" /> {words.degraded}
      </summary>
      <ul>
        {failures.map((failure, index) => (
          <li key={index} dir="auto">
            {failure.start_s === undefined ? words.lost(failure.source, failure.reason) : words.lostPart(failure.source, formatTime(failure.start_s), formatTime(failure.end_s ?? failure.start_s), failure.reason)}
          </li>
        ))}
      </ul>
    </details>
  );
}

