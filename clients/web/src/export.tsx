/** Export of transcripts as files. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { Format } from "./api";
import { toSrt, toText, toTtml, toWebVtt } from "./captions";
import { Icon } from "./icons";
import type { Result, Transcript } from "./result";
import { notify, errorMessage } from "./store";
import { strings } from "./i18n/en";

const FORMATS: Format[] = ["vtt", "srt", "ttml", "json", "txt"];

interface ExportProps {
  /** Name of the media file; its extension is replaced. */
  name: string;
  exportFile: (format: Format) => Promise<Blob>;
  recording?: Blob | null;
}

export function ExportMenu({ name, exportFile, recording }: ExportProps) {
  const [isBusy, setBusy] = useState(false);
  const menu = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    const close = (event: Event) => {
      if (menu.current?.open && event.target instanceof Node && !menu.current.contains(event.target)) menu.current.open = false;
    };
    document.addEventListener("pointerdown", close);
    document.addEventListener("focusin", close);
    return () => {
      document.removeEventListener("pointerdown", close);
      document.removeEventListener("focusin", close);
    };
  }, []);
  const run = async (format: Format) => {
    setBusy(true);
    try {
      download(await exportFile(format), `${toFileStem(name)}.${format}`);
    } catch (error) {
      notify(strings.export.failed(errorMessage(error)), "error");
    }
    setBusy(false);
    if (menu.current) menu.current.open = false;
  };
  return (
    <details
      class="menu"
      ref={menu}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !menu.current?.open) return;
        menu.current.open = false;
        menu.current.querySelector("summary")?.focus();
      }}
    >
      <summary class="button">
        <Icon name="export" /> {strings.export.title}
      </summary>
      <ul>
        {FORMATS.map((format) => (
          <li key={format}>
            <button type="button" class="plain wide" disabled={isBusy} onClick={() => void run(format)}>
              {strings.export.formats[format]}
            </button>
          </li>
        ))}
        {recording && (
          <li>
            <button type="button" class="plain wide" onClick={() => download(recording, `${toFileStem(name)}.webm`)}>
              {strings.export.video}
            </button>
          </li>
        )}
      </ul>
    </details>
  );
}

/** Generate an export in the page, for transcripts that are not stored on the server. */
export function toBlob(format: Format, result: Result, transcript: Transcript): Blob {
  switch (format) {
    case "vtt":
      return new Blob([toWebVtt(transcript)], { type: "text/vtt" });
    case "srt":
      return new Blob([toSrt(transcript)], { type: "application/x-subrip" });
    case "ttml":
      return new Blob([toTtml(transcript, result.language)], { type: "application/ttml+xml" });
    case "txt":
      return new Blob([toText(transcript)], { type: "text/plain" });
    case "json":
      return new Blob([JSON.stringify(toDocument(result, transcript), null, 1)], { type: "application/json" });
  }
}

/** Return a result with its corrections, in the API's format. */
export function toDocument(result: Result, transcript: Transcript): Result & { names?: Record<string, string> } {
  const document = { ...result, segments: transcript.segments };
  return Object.keys(transcript.names).length ? { ...document, names: transcript.names } : document;
}

export function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function toFileStem(name: string): string {
  return name.replace(/\.[a-z0-9]{1,5}$/i, "").replace(/[^\p{L}\p{N}._ -]+/gu, "-").slice(0, 100) || "transcript";
}
