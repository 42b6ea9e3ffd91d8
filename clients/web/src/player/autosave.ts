/**
 * Saves corrections shortly after the last change, one request at a time. Unsaved changes are stored as a draft in the
 * browser, so that they survive a reload.
 */

import { useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../api";
import type { LoadedResult } from "../api";
import type { History } from "../editing";
import { createHistory } from "../editing";
import type { Transcript } from "../result";
import { api, saveItem, loadItem, notify, errorMessage } from "../store";
import { strings } from "../i18n/en";

const SAVE_DELAY_MS = 1500;

export type SaveState = "saved" | "saving" | "unsaved" | "failed" | "conflict";

interface Draft {
  version: number;
  transcript: Transcript;
}

export interface Autosave {
  history: History;
  onHistory: (change: (history: History) => History) => void;
  state: SaveState;
  problem: string;
  version: number;
  /** Save now; resolves when the request has succeeded or failed. */
  save: () => Promise<void>;
  /** Resolve a conflict: save the local transcript on top of the newest version. */
  overwrite: () => Promise<void>;
}

/** Edit and save a job's transcript; `loaded` is the content of `version`. */
export function useAutosave(jobId: string, loaded: LoadedResult, version: number): Autosave {
  const first = useRef<Transcript | null>(null);
  first.current ??= toTranscript(loaded);
  const [history, setHistory] = useState<History>(() => createHistory(restoreDraft(jobId, version) ?? first.current!));
  const [state, setState] = useState<SaveState>("saved");
  const [problem, setProblem] = useState("");
  const base = useRef<Transcript>(first.current);
  const baseVersion = useRef(version);
  const latest = useRef(history);
  const inFlight = useRef<Promise<void> | null>(null);
  latest.current = history;

  const send = useCallback(async () => {
    const sent = latest.current.present;
    if (sent === base.current) return;
    setState("saving");
    try {
      const saved = await api.value.saveCorrections(jobId, baseVersion.current, base.current, sent);
      const hasRemovedSegments = base.current.segments.length !== saved.result.segments.length;
      base.current = toTranscript(saved);
      baseVersion.current = saved.version;
      if (latest.current.present === sent) {
        // Adopt the word times set by the server. Saved removals of segments cannot be undone.
        const past = hasRemovedSegments ? [] : latest.current.past;
        latest.current = { ...latest.current, past, present: base.current };
        setHistory(latest.current);
        saveItem(`draft.${jobId}`, null);
        setState("saved");
      } else {
        setState("unsaved");
      }
      setProblem("");
    } catch (error) {
      const isConflict = error instanceof ApiError && error.status === 409;
      setState(isConflict ? "conflict" : "failed");
      setProblem(errorMessage(error));
    }
  }, [jobId]);

  const save = useCallback(async () => {
    while (inFlight.current) await inFlight.current;
    inFlight.current = send();
    try {
      await inFlight.current;
    } finally {
      inFlight.current = null;
    }
  }, [send]);

  // Not useEffect, which runs after the next paint: a reload before that would lose the change.
  useLayoutEffect(() => {
    if (history.present === base.current) return;
    saveItem(`draft.${jobId}`, JSON.stringify({ version: baseVersion.current, transcript: history.present } satisfies Draft));
    setState((before) => (before === "conflict" ? before : "unsaved"));
    const timer = setTimeout(() => void save(), SAVE_DELAY_MS);
    return () => clearTimeout(timer);
  }, [history.present, save]);

  const overwrite = useCallback(async () => {
    try {
      const job = await api.value.getJob(jobId);
      base.current = toTranscript(await api.value.getResult(jobId, job.version));
      baseVersion.current = job.version;
      await save();
    } catch (error) {
      notify(errorMessage(error), "error");
    }
  }, [jobId, save]);

  const onHistory = useCallback((change: (history: History) => History) => setHistory(change), []);
  return { history, onHistory, state, problem, version: baseVersion.current, save, overwrite };
}

function toTranscript({ result, names }: LoadedResult): Transcript {
  return { segments: result.segments, names };
}

/** Return the draft of this version, if there is one. */
function restoreDraft(jobId: string, version: number): Transcript | null {
  try {
    const draft = JSON.parse(loadItem(`draft.${jobId}`) ?? "null") as Draft | null;
    if (draft && draft.version === version && Array.isArray(draft.transcript.segments)) {
      notify(strings.save.draft);
      return draft.transcript;
    }
  } catch {
    // Ignore malformed drafts.
  }
  return null;
}
