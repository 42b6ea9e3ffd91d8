/** Player, transcript and speakers of a job or a live session. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { buildCues, toWebVtt } from "../captions";
import { Icon } from "../icons";
import type { Box, Result, Transcript } from "../result";
import { loadItem, saveItem } from "../store";
import { strings } from "../i18n/en";
import type { WordPosition } from "../editing";
import { push, redo, undo } from "../editing";
import type { History } from "../editing";
import { Speakers } from "./speakers";
import { VideoPlayer } from "./video-player";
import type { PlayerHandle } from "./video-player";
import { Shortcuts } from "./shortcuts";
import { TranscriptPanel } from "./transcript";
import { WordDetails } from "./word-details";

export interface EditorProps {
  result: Result;
  history: History;
  onHistory: (change: (history: History) => History) => void;
  video: string;
  /** Returns a new URL of the video: presigned URLs expire after some minutes. */
  renewVideo?: (() => Promise<string>) | null;
  /** Controls above the transcript: save status, export. */
  tools: ComponentChildren;
  onSave?: () => void;
}

export function Editor({ result, history, onHistory, video, renewVideo, tools, onSave }: EditorProps) {
  const transcript = history.present;
  const now = useSignal(0);
  const player = useRef<PlayerHandle>(null);
  const [selected, setSelected] = useState<WordPosition | null>(null);
  const [editing, setEditing] = useState<WordPosition | null>(null);
  const [showsSources, setShowsSources] = useState(loadItem("source-marks") !== "no");
  const [showsShortcuts, setShowsShortcuts] = useState(false);

  const faces = useMemo(() => groupBoxesByPerson(result), [result]);
  const cues = useMemo(() => buildCues(transcript.segments), [transcript.segments]);
  const vtt = useMemo(() => toWebVtt(transcript), [transcript]);
  const speakers = useMemo(() => listSpeakers(result, transcript), [result, transcript.segments]);

  const change = useCallback((next: (transcript: Transcript) => Transcript) => onHistory((history) => push(history, next(history.present))), [onHistory]);
  const seek = useCallback((timeS: number, andPlay = false) => player.current?.seek(timeS, andPlay), []);
  const onUndo = useCallback(() => onHistory(undo), [onHistory]);
  const onRedo = useCallback(() => onHistory(redo), [onHistory]);

  const toggleSources = () => {
    saveItem("source-marks", showsSources ? "no" : "yes");
    setShowsSources(!showsSources);
  };

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.altKey) return;
      const key = event.key.toLowerCase();
      const isCommand = event.ctrlKey || event.metaKey;
      if (isCommand && key === "s" && onSave) onSave();
      else if (isTextInput(event.target)) return;
      else if (isCommand && key === "z") (event.shiftKey ? onRedo : onUndo)();
      else if (isCommand && key === "y") onRedo();
      else if (isCommand) return;
      else if (key === "?") setShowsShortcuts(true);
      else if (key === "/") document.getElementById("search")?.focus();
      else if (key === "k") player.current?.toggle();
      else if (key === " " && !isInteractive(event.target)) player.current?.toggle();
      else if (key === "j") player.current?.skip(-5);
      else if (key === "l") player.current?.skip(5);
      else if (key === "c" || key === "b" || key === "m" || key === "f") player.current?.toggleOption(key);
      else return;
      event.preventDefault();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [onSave, onUndo, onRedo]);

  return (
    <div class="editor">
      <div class="stage">
        <VideoPlayer handle={player} now={now} onTime={(timeS) => (now.value = timeS)} video={video} renewVideo={renewVideo ?? null} vtt={vtt} cues={cues} faces={faces} transcript={transcript} result={result} speakers={speakers} />
        <div class="stage-foot">
          <WordDetails transcript={transcript} position={selected} change={change} onEdit={setEditing} />
          <Speakers transcript={transcript} speakers={speakers} change={change} />
        </div>
        <button type="button" class="plain wide keys" onClick={() => setShowsShortcuts(true)}>
          <Icon name="keyboard" /> {strings.player.shortcuts}
        </button>
      </div>
      <TranscriptPanel
        result={result}
        transcript={transcript}
        speakers={speakers}
        now={now}
        selected={selected}
        onSelect={setSelected}
        editing={editing}
        onEdit={setEditing}
        change={change}
        seek={seek}
        showsSources={showsSources}
        onToggleSources={toggleSources}
        undo={history.past.length ? onUndo : null}
        redo={history.future.length ? onRedo : null}
        tools={tools}
      />
      {showsShortcuts && <Shortcuts close={() => setShowsShortcuts(false)} />}
    </div>
  );
}

/** List everyone who speaks or was seen, by number. */
function listSpeakers(result: Result, transcript: Transcript): string[] {
  const speakers = new Set([...result.people.map((person) => person.name), ...transcript.segments.map((segment) => segment.person)]);
  return [...speakers].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

function groupBoxesByPerson(result: Result): Map<string, Box[]> {
  const boxes = new Map<string, Box[]>();
  for (const face of result.faces) boxes.set(face.person, [...(boxes.get(face.person) ?? []), ...face.boxes]);
  for (const each of boxes.values()) each.sort((a, b) => a.time_s - b.time_s);
  return boxes;
}

function isTextInput(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input:not([type=range]):not([type=checkbox]), textarea, select");
}

function isInteractive(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("button, a, input, select, summary");
}
