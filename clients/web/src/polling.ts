/** Polling that slows down while the page is hidden. */

import { useEffect, useRef } from "preact/hooks";

const HIDDEN_INTERVAL_FACTOR = 10;

/**
 * Call `poll` now and then after the number of seconds that it returns (0: stop), until the component is unmounted or a
 * key changes. Calls immediately when the page becomes visible.
 */
export function usePolling(poll: () => Promise<number>, keys: readonly unknown[]): void {
  const latest = useRef(poll);
  latest.current = poll;
  useEffect(() => {
    let isStopped = false;
    let timer = 0;
    const run = async () => {
      window.clearTimeout(timer);
      const afterS = await latest.current();
      if (isStopped || afterS === 0) return;
      timer = window.setTimeout(() => void run(), afterS * 1000 * (document.hidden ? HIDDEN_INTERVAL_FACTOR : 1));
    };
    const onVisible = () => {
      if (!document.hidden && timer) void run();
    };
    document.addEventListener("visibilitychange", onVisible);
    void run();
    return () => {
      isStopped = true;
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisible);
    };
  }, keys);
}
