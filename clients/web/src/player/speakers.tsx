/** The speakers of a video with their colours; renames them. */

import { useRef, useState } from "preact/hooks";
import { speakerName } from "../captions";
import { renameSpeaker } from "../editing";
import { Icon } from "../icons";
import type { Transcript } from "../result";
import { speakerColor } from "../result";
import { strings } from "../i18n/en";
import { formatTime } from "../format";

const texts = strings.transcript;

interface SpeakersProps {
  transcript: Transcript;
  speakers: string[];
  change: (next: (transcript: Transcript) => Transcript) => void;
}

export function Speakers({ transcript, speakers, change }: SpeakersProps) {
  if (!speakers.length) return null;
  return (
    <section class="card speakers" aria-labelledby="speakers">
      <h2 id="speakers">{texts.speakers}</h2>
      <ul>
        {speakers.map((person) => (
          <Speaker key={person} person={person} transcript={transcript} change={change} />
        ))}
      </ul>
    </section>
  );
}

function Speaker({ person, transcript, change }: { person: string; transcript: Transcript; change: SpeakersProps["change"] }) {
  const [isEditing, setEditing] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  const name = speakerName(transcript, person);
  const spokenS = transcript.segments.filter((segment) => segment.person === person).reduce((sum, segment) => sum + segment.end_s - segment.start_s, 0);
  const finish = (value: string | null) => {
    setEditing(false);
    if (value !== null && value !== name) change((before) => renameSpeaker(before, person, value));
    requestAnimationFrame(() => button.current?.focus());
  };
  return (
    <li class={`person-${speakerColor(person)}`}>
      <span class="swatch" aria-hidden="true" />
      {isEditing ? (
        <NameInput name={name} finish={finish} />
      ) : (
        <>
          <span class="person-name" dir="auto">
            {name}
          </span>
          <span class="quiet">{formatTime(spokenS)}</span>
          <button ref={button} type="button" class="plain" aria-label={texts.rename(name)} title={texts.rename(name)} onClick={() => setEditing(true)}>
            <Icon name="pencil" />
          </button>
        </>
      )}
    </li>
  );
}

function NameInput({ name, finish }: { name: string; finish: (value: string | null) => void }) {
  const isFinished = useRef(false);
  const finishOnce = (value: string | null) => {
    if (isFinished.current) return;
    isFinished.current = true;
    finish(value);
  };
  return (
    <input
      ref={(input) => {
        if (input && document.activeElement !== input) input.select();
      }}
      aria-label={texts.nameOf(name)}
      defaultValue={name}
      maxLength={100}
      autocomplete="off"
      onKeyDown={(event) => {
        if (event.key === "Enter") finishOnce(event.currentTarget.value);
        if (event.key === "Escape") finishOnce(null);
        event.stopPropagation();
      }}
      onBlur={(event) => finishOnce(event.currentTarget.value)}
    />
  );
}
