/** A saved live session. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { Format } from "../api";
import type { History } from "../editing";
import { createHistory } from "../editing";
import { ExportMenu, toBlob } from "../export";
import { Icon } from "../icons";
import type { Session } from "../live/sessions";
import { loadSession, saveSession } from "../live/sessions";
import { Editor } from "../player/editor";
import { notify, errorMessage } from "../store";
import { strings } from "../i18n/en";
import { startUpload } from "../uploads";

export function SessionPage({ id }: { id: string }) {
  const [session, setSession] = useState<Session | null | undefined>(undefined);
  useEffect(() => {
    loadSession(id).then(setSession, () => setSession(null));
  }, [id]);
  useEffect(() => {
    if (session) document.title = `${session.name} · ${strings.app.name}`;
  }, [session?.name]);
  return (
    <main id="content" tabIndex={-1} class="job">
      <div class="title">
        <a class="back" href="#/">
          {strings.app.videos}
        </a>
        <h1 dir="auto">{session === null ? strings.app.notFound : (session?.name ?? strings.job.loading)}</h1>
      </div>
      {session && <SessionEditor session={session} isSaved />}
    </main>
  );
}

/** The editor of a live session. If the session is saved, changes are saved too. */
export function SessionEditor({ session, isSaved }: { session: Session; isSaved: boolean }) {
  const [history, setHistory] = useState<History>(() => createHistory({ segments: session.result.segments, names: session.names }));
  const [video, setVideo] = useState("");
  const isFirst = useRef(true);
  useEffect(() => {
    if (!session.recording) return;
    const url = URL.createObjectURL(session.recording);
    setVideo(url);
    return () => URL.revokeObjectURL(url);
  }, [session.recording]);
  useEffect(() => {
    if (isFirst.current || !isSaved) {
      isFirst.current = false;
      return;
    }
    const { segments, names } = history.present;
    saveSession({ ...session, names, result: { ...session.result, segments } }).catch((error: unknown) => notify(errorMessage(error), "error"));
  }, [history.present, isSaved]);
  const onHistory = useCallback((change: (history: History) => History) => setHistory(change), []);
  const exportFile = (format: Format) => Promise.resolve(toBlob(format, session.result, history.present));
  const uploadRecording = () => {
    if (session.recording) startUpload(session.recording, `${session.name.replace(/[^\p{L}\p{N}]+/gu, "-")}.webm`, {}, (jobId) => (location.hash = `#/jobs/${jobId}`));
    location.hash = "#/";
  };
  return (
    <Editor
      result={session.result}
      history={history}
      onHistory={onHistory}
      video={video}
      tools={
        <>
          {session.recording && (
            <button type="button" title={strings.live.uploadHint} onClick={uploadRecording}>
              <Icon name="upload" /> {strings.live.upload}
            </button>
          )}
          <ExportMenu name={session.name} exportFile={exportFile} recording={session.recording} />
        </>
      }
    />
  );
}
