/** The source, confidence and alternatives of the selected word. */

import { sanitize, useAlternative } from "../editing";
import type { WordPosition } from "../editing";
import { Icon } from "../icons";
import type { Transcript } from "../result";
import { strings } from "../i18n/en";

const texts = strings.transcript;

interface WordDetailsProps {
  transcript: Transcript;
  position: WordPosition | null;
  change: (next: (transcript: Transcript) => Transcript) => void;
  onEdit: (position: WordPosition) => void;
}

export function WordDetails({ transcript, position, change, onEdit }: WordDetailsProps) {
  const word = position && transcript.segments.find((segment) => segment.id === position.segmentId)?.words[position.index];
  if (!position || !word) {
    return (
      <section class="card word-card" aria-label={texts.word}>
        <p class="quiet">{texts.noWord}</p>
      </section>
    );
  }
  const percent = Math.round(word.confidence * 100);
  return (
    <section class="card word-card" aria-label={texts.word}>
      <div class="word-head">
        <strong dir="auto">{word.text}</strong>
        <button type="button" aria-label={texts.correct} title={texts.correct} class="plain" onClick={() => onEdit(position)}>
          <Icon name="pencil" />
        </button>
      </div>
      <dl id="word-details">
        <div>
          <dt>{texts.source}</dt>
          <dd>{strings.sources[word.source]}</dd>
        </div>
        <div>
          <dt>{texts.confidence}</dt>
          <dd>
            {word.source === "correction" ? (
              texts.corrected
            ) : (
              <>
                <meter min={0} max={100} low={50} high={80} optimum={100} value={percent} aria-label={texts.confidence} /> {percent} %
              </>
            )}
          </dd>
        </div>
      </dl>
      {word.alternatives.length > 0 && (
        <div class="alternatives">
          <span class="quiet">{texts.alternatives}</span>
          {word.alternatives.map((alternative, index) => (
            <button key={index} type="button" class="chip" aria-label={texts.use(sanitize(alternative.text))} onClick={() => change((before) => useAlternative(before, position, alternative))}>
              <span dir="auto">{alternative.text}</span> <span class="quiet">{strings.sources[alternative.source]}</span>
            </button>
          ))}
        </div>
      )}
    </section>
  );
}
