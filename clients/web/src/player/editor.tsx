/** Picture, transcript and people of one video, side by side: what jobs and kept live sessions show. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { buildCues, toWebVtt } from "../captions";
import { Icon } from "../icons";
import type { Box, Result, Transcript } from "../result";
import { loadItem, saveItem } from "../store";
import { strings } from "../i18n/en";
import type { WordPosition } from "../editing";
import { push, createHistory, redo, undo } from "../editing";
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
  /** Asks for another address of the video, for the one that is shown works for some minutes only. */
  renewVideo?: (() => Promise<string>) | null;
  /** Shown above the transcript: saving, exporting. */
  tools: ComponentChildren;
  onSave?: () => void;
}

export { push, createHistory };

export function Editor({ result, history, onHistory, video, renewVideo, tools, onSave }: EditorProps) {
  const transcript = history.present;
  const now = useSignal(0);
  const player = useRef<PlayerHandle>(null);
  const [chosen, setChosen] = useState<WordPosition | null>(null);
  const [editing, setEditing] = useState<WordPosition | null>(null);
  const [hasMarks, setMarks] = useState(loadItem("marks") !== "no");
  const [showsKeys, setShowsKeys] = useState(false);

  const faces = useMemo(() => boxesByPerson(result), [result]);
  const cues = useMemo(() => buildCues(transcript.segments), [transcript.segments]);
  const vtt = useMemo(() => toWebVtt(transcript), [transcript]);
  const people = useMemo(() => listSpeakers(result, transcript), [result, transcript.segments]);

  const change = useCallback((next: (transcript: Transcript) => Transcript) => onHistory((history) => push(history, next(history.present))), [onHistory]);
  const seek = useCallback((timeS: number, plays = false) => player.current?.seek(timeS, plays), []);
  const onUndo = useCallback(() => onHistory(undo), [onHistory]);
  const onRedo = useCallback(() => onHistory(redo), [onHistory]);

  const toggleMarks = () => {
    saveItem("marks", hasMarks ? "no" : "yes");
    setMarks(!hasMarks);
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
      else if (key === "?") setShowsKeys(true);
      else if (key === "/") document.getElementById("search")?.focus();
      else if (key === "k") player.current?.toggle();
      else if (key === " " && !isOperable(event.target)) player.current?.toggle();
      else if (key === "j") player.current?.skip(-5);
      else if (key === "l") player.current?.skip(5);
      else if (key === "c" || key === "b" || key === "m" || key === "f") player.current?.press(key);
      else return;
      event.preventDefault();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [onSave, onUndo, onRedo]);

  return (
    <div class="editor">
      <div class="stage">
        <VideoPlayer handle={player} now={now} onTime={(timeS) => (now.value = timeS)} video={video} renewVideo={renewVideo ?? null} vtt={vtt} cues={cues} faces={faces} transcript={transcript} result={result} people={people} />
        <div class="stage-foot">
          <WordDetails transcript={transcript} place={chosen} change={change} onEdit={setEditing} />
          <Speakers transcript={transcript} people={people} change={change} />
        </div>
        <button type="button" class="plain wide keys" onClick={() => setShowsKeys(true)}>
          <Icon name="keyboard" /> {strings.player.shortcuts}
        </button>
      </div>
      <TranscriptPanel
        result={result}
        transcript={transcript}
        people={people}
        now={now}
        chosen={chosen}
        onChoose={setChosen}
        editing={editing}
        onEdit={setEditing}
        change={change}
        seek={seek}
        hasMarks={hasMarks}
        onMarks={toggleMarks}
        undo={history.past.length ? onUndo : null}
        redo={history.future.length ? onRedo : null}
        tools={tools}
      />
      {showsKeys && <Shortcuts close={() => setShowsKeys(false)} />}
    </div>
  );
}

/** Everybody who speaks or was seen, by number. */
function listSpeakers(result: Result, transcript: Transcript): string[] {
  const people = new Set([...result.people.map((person) => person.name), ...transcript.segments.map((segment) => segment.person)]);
  return [...people].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

function boxesByPerson(result: Result): Map<string, Box[]> {
  const boxes = new Map<string, Box[]>();
  for (const face of result.faces) boxes.set(face.person, [...(boxes.get(face.person) ?? []), ...face.boxes]);
  for (const each of boxes.values()) each.sort((a, b) => a.time_s - b.time_s);
  return boxes;
}

function isTextInput(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input:not([type=range]):not([type=checkbox]), textarea, select");
}

function isOperable(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("button, a, input, select, summary");
}
