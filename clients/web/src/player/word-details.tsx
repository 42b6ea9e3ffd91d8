/** Where a word was read from, how sure it is, and what else it could be. */

import { sanitize, useAlternative } from "../editing";
import type { WordPosition } from "../editing";
import { Icon } from "../icons";
import type { Transcript } from "../result";
import { strings } from "../i18n/en";

const words = strings.transcript;

interface DetailsProps {
  transcript: Transcript;
  place: WordPosition | null;
  change: (next: (transcript: Transcript) => Transcript) => void;
  onEdit: (place: WordPosition) => void;
}

export function WordDetails({ transcript, place, change, onEdit }: DetailsProps) {
  const word = place && transcript.segments.find((segment) => segment.id === place.segmentId)?.words[place.index];
  if (!place || !word) {
    return (
      <section class="card word-card" aria-label={words.word}>
        <p class="quiet">{words.noWord}</p>
      </section>
    );
  }
  const percent = Math.round(word.confidence * 100);
  return (
    <section class="card word-card" aria-label={words.word}>
      <div class="word-head">
        <strong dir="auto">{word.text}</strong>
        <button type="button" aria-label={words.correct} title={words.correct} class="plain" onClick={() => onEdit(place)}>
          <Icon name="pencil" />
        </button>
      </div>
      <dl id="word-details">
        <div>
          <dt>{words.source}</dt>
          <dd>{strings.sources[word.source]}</dd>
        </div>
        <div>
          <dt>{words.confidence}</dt>
          <dd>
            {word.source === "correction" ? (
              words.corrected
            ) : (
              <>
                <meter min={0} max={100} low={50} high={80} optimum={100} value={percent} aria-label={words.confidence} /> {percent} %
              </>
            )}
          </dd>
        </div>
      </dl>
      {word.alternatives.length > 0 && (
        <div class="alternatives">
          <span class="quiet">{words.alternatives}</span>
          {word.alternatives.map((alternative, index) => (
            <button key={index} type="button" class="chip" aria-label={words.use(sanitize(alternative.text))} onClick={() => change((before) => useAlternative(before, place, alternative))}>
              <span dir="auto">{alternative.text}</span> <span class="quiet">{strings.sources[alternative.source]}</span>
            </button>
          ))}
        </div>
      )}
    </section>
  );
}
