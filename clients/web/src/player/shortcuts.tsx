/** The list of keyboard shortcuts. */

import { useEffect, useRef } from "preact/hooks";
import { Icon } from "../icons";
import { strings } from "../i18n/en";

export function Shortcuts({ close }: { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="card" aria-labelledby="keys" onClose={close}>
      <div class="dialog-head">
        <h2 id="keys">{strings.player.shortcuts}</h2>
        <button type="button" class="plain" aria-label={strings.app.dismiss} onClick={() => dialog.current?.close()}>
          <Icon name="close" />
        </button>
      </div>
      <dl class="keys-list">
        {strings.shortcuts.map(([keys, meaning]) => (
          <div key={keys}>
            <dt>
              <kbd>{keys}</kbd>
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
    </dialog>
  );
}
