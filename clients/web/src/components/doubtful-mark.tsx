/** The mark before words that are probably wrong. */

import { DOUBTFUL_MARK } from "../captions";
import { strings } from "../i18n/en";

export function DoubtfulMark() {
  return (
    <>
      <abbr class="doubtful" title={strings.transcript.doubtful}>
        {DOUBTFUL_MARK}
      </abbr>{" "}
    </>
  );
}
