/** Asking again and again, less often while nobody looks. */

import { useEffect, useRef } from "preact/hooks";

const HIDDEN_FACTOR = 10;

/**
 * Ask at once, then again after as many seconds as the answer says (0: no more), until the component goes. What is
 * asked while another `ask` goes on is not asked twice.
 */
export function usePolling(ask: () => Promise<number>, keys: readonly unknown[]): void {
  const newest = useRef(ask);
  newest.current = ask;
  useEffect(() => {
    let isOver = false;
    let timer = 0;
    const go = async () => {
      window.clearTimeout(timer);
      const afterS = await newest.current();
      if (isOver || afterS === 0) return;
      timer = window.setTimeout(() => void go(), afterS * 1000 * (document.hidden ? HIDDEN_FACTOR : 1));
    };
    const wake = () => {
      if (!document.hidden && timer) void go();
    };
    document.addEventListener("visibilitychange", wake);
    void go();
    return () => {
      isOver = true;
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", wake);
    };
  }, keys);
}
