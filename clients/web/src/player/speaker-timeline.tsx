/** Who speaks when: a lane for each person under the picture. */

import type { ReadonlySignal } from "@preact/signals";
import { memo } from "../memo";
import type { Transcript } from "../result";
import { speakerColor } from "../result";

interface SpeakerTimelineProps {
  transcript: Transcript;
  people: string[];
  durationS: number;
  now: ReadonlySignal<number>;
  seek: (timeS: number) => void;
}

/** For the eye and the mouse: with the keyboard, the same is reached by the slider and in the transcript. */
export function SpeakerTimeline({ transcript, people, durationS, now, seek }: SpeakerTimelineProps) {
  if (durationS <= 0) return null;
  const onClick = (event: MouseEvent) => {
    const area = (event.currentTarget as HTMLElement).getBoundingClientRect();
    seek(((event.clientX - area.left) / area.width) * durationS);
  };
  return (
    <div class="lanes" aria-hidden="true" onClick={onClick}>
      <Bars segments={transcript.segments} people={people} durationS={durationS} />
      <div class="needle" style={{ left: `${Math.min(100, (now.value / durationS) * 100)}%` }} />
    </div>
  );
}

const Bars = memo(function Bars({ segments, people, durationS }: { segments: Transcript["segments"]; people: string[]; durationS: number }) {
  const speaking = people.filter((person) => segments.some((segment) => segment.person === person));
  return (
    <>
      {speaking.map((person) => (
        <div key={person} class={`lane person-${speakerColor(person)}`}>
          {segments
            .filter((segment) => segment.person === person)
            .map((segment) => (
              <i key={segment.id} style={{ left: `${(segment.start_s / durationS) * 100}%`, width: `${((segment.end_s - segment.start_s) / durationS) * 100}%` }} />
            ))}
        </div>
      ))}
    </>
  );
});
