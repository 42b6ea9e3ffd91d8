/**
 * Keeping corrections: a moment after the last change, one request at a time. What is not saved yet is kept in the
 * browser, so that closing the page loses nothing.
 */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
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
  /** Save now; resolves when it is done, or has failed. */
  save: () => Promise<void>;
  /** After a conflict: keep what is here, as corrections of what is there. */
  keepMine: () => Promise<void>;
}

/** Corrections of one job's transcript; `loaded` is the version that was loaded. */
export function useAutosave(jobId: string, loaded: LoadedResult, version: number): Autosave {
  const first = useRef<Transcript | null>(null);
  first.current ??= toTranscript(loaded);
  const [history, setHistory] = useState<History>(() => createHistory(restoreDraft(jobId, version) ?? first.current!));
  const [state, setState] = useState<SaveState>("saved");
  const [problem, setProblem] = useState("");
  const base = useRef<Transcript>(first.current);
  const baseVersion = useRef(version);
  const newest = useRef(history);
  const going = useRef<Promise<void> | null>(null);
  newest.current = history;

  const send = useCallback(async () => {
    const sent = newest.current.present;
    if (sent === base.current) return;
    setState("saving");
    try {
      const saved = await api.value.save(jobId, baseVersion.current, base.current, sent);
      const isTaken = base.current.segments.length !== saved.result.segments.length;
      base.current = toTranscript(saved);
      baseVersion.current = saved.version;
      if (newest.current.present === sent) {
        // The server gives corrected words their times. A line that was saved as taken away cannot be put back.
        const past = isTaken ? [] : newest.current.past;
        newest.current = { ...newest.current, past, present: base.current };
        setHistory(newest.current);
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
    while (going.current) await going.current;
    going.current = send();
    try {
      await going.current;
    } finally {
      going.current = null;
    }
  }, [send]);

  useEffect(() => {
    if (history.present === base.current) return;
    saveItem(`draft.${jobId}`, JSON.stringify({ version: baseVersion.current, transcript: history.present } satisfies Draft));
    setState((before) => (before === "conflict" ? before : "unsaved"));
    const timer = setTimeout(() => void save(), SAVE_DELAY_MS);
    return () => clearTimeout(timer);
  }, [history.present, save]);

  const keepMine = useCallback(async () => {
    try {
      const job = await api.value.job(jobId);
      base.current = toTranscript(await api.value.result(jobId, job.version));
      baseVersion.current = job.version;
      await save();
    } catch (error) {
      notify(errorMessage(error), "error");
    }
  }, [jobId, save]);

  const onHistory = useCallback((change: (history: History) => History) => setHistory(change), []);
  return { history, onHistory, state, problem, version: baseVersion.current, save, keepMine };
}

export function toTranscript({ result, names }: LoadedResult): Transcript {
  return { segments: result.segments, names };
}

/** What was changed and not saved when the page was left, if it belongs to this version. */
function restoreDraft(jobId: string, version: number): Transcript | null {
  try {
    const draft = JSON.parse(loadItem(`draft.${jobId}`) ?? "null") as Draft | null;
    if (draft && draft.version === version && Array.isArray(draft.transcript.segments)) {
      notify(strings.save.draft);
      return draft.transcript;
    }
  } catch {
    // A draft that cannot be read is none.
  }
  return null;
}
