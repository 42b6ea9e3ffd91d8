/** A timeline of who speaks when, with a row for each speaker. */

import type { ReadonlySignal } from "@preact/signals";
import { memo } from "../memo";
import type { Transcript } from "../result";
import { speakerColor } from "../result";

interface SpeakerTimelineProps {
  transcript: Transcript;
  speakers: string[];
  durationS: number;
  now: ReadonlySignal<number>;
  seek: (timeS: number) => void;
}

/** For mouse users only: keyboard users have the position slider and the transcript. */
export function SpeakerTimeline({ transcript, speakers, durationS, now, seek }: SpeakerTimelineProps) {
  if (durationS <= 0) return null;
  const onClick = (event: MouseEvent) => {
    const area = (event.currentTarget as HTMLElement).getBoundingClientRect();
    seek(((event.clientX - area.left) / area.width) * durationS);
  };
  return (
    <div class="timeline" aria-hidden="true" onClick={onClick}>
      <Rows segments={transcript.segments} speakers={speakers} durationS={durationS} />
      <div class="playhead" style={{ left: `${Math.min(100, (now.value / durationS) * 100)}%` }} />
    </div>
  );
}

const Rows = memo(function Rows({ segments, speakers, durationS }: { segments: Transcript["segments"]; speakers: string[]; durationS: number }) {
  const active = speakers.filter((person) => segments.some((segment) => segment.person === person));
  return (
    <>
      {active.map((person) => (
        <div key={person} class={`timeline-row person-${speakerColor(person)}`}>
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
