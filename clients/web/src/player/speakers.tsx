/** The people of a video, with the colours that are theirs; their names are changed here. */

import { useRef, useState } from "preact/hooks";
import { speakerName } from "../captions";
import { renameSpeaker } from "../editing";
import { Icon } from "../icons";
import type { Transcript } from "../result";
import { speakerColor } from "../result";
import { strings } from "../i18n/en";
import { formatTime } from "../format";

const words = strings.transcript;

interface SpeakersProps {
  transcript: Transcript;
  people: string[];
  change: (next: (transcript: Transcript) => Transcript) => void;
}

export function Speakers({ transcript, people, change }: SpeakersProps) {
  if (!people.length) return null;
  return (
    <section class="card people" aria-labelledby="people">
      <h2 id="people">{words.people}</h2>
      <ul>
        {people.map((person) => (
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
          <button ref={button} type="button" class="plain" aria-label={words.rename(name)} title={words.rename(name)} onClick={() => setEditing(true)}>
            <Icon name="pencil" />
          </button>
        </>
      )}
    </li>
  );
}

function NameInput({ name, finish }: { name: string; finish: (value: string | null) => void }) {
  const isOver = useRef(false);
  const end = (value: string | null) => {
    if (isOver.current) return;
    isOver.current = true;
    finish(value);
  };
  return (
    <input
      ref={(input) => {
        if (input && document.activeElement !== input) input.select();
      }}
      aria-label={words.nameOf(name)}
      defaultValue={name}
      maxLength={100}
      autocomplete="off"
      onKeyDown={(event) => {
        if (event.key === "Enter") end(event.currentTarget.value);
        if (event.key === "Escape") end(null);
        event.stopPropagation();
      }}
      onBlur={(event) => end(event.currentTarget.value)}
    />
  );
}
