/** Icons: 24 × 24, in the current text colour, hidden from screen readers. */

const PATHS = {
  play: "M8 5.5v13a.6.6 0 0 0 .9.5l10.3-6.5a.6.6 0 0 0 0-1L8.9 5a.6.6 0 0 0-.9.5Z",
  pause: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
  volume: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM15 8.7a4.5 4.5 0 0 1 0 6.6M17.5 6a8.3 8.3 0 0 1 0 12",
  muted: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM15.5 9.5l5 5m0-5-5 5",
  captions: "M3.5 5.5h17v13h-17zM10.5 10.5a2.3 2.3 0 1 0 0 3M17 10.5a2.3 2.3 0 1 0 0 3",
  face: "M4 8V5.5A1.5 1.5 0 0 1 5.5 4H8M16 4h2.5A1.5 1.5 0 0 1 20 5.5V8M20 16v2.5a1.5 1.5 0 0 1-1.5 1.5H16M8 20H5.5A1.5 1.5 0 0 1 4 18.5V16M9.5 9.5v.5M14.5 9.5v.5M8.8 14.5c1.9 1.7 4.5 1.7 6.4 0",
  full: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  undo: "M8.5 5 4 9.5 8.5 14M4.5 9.5H14a5 5 0 0 1 0 10h-4",
  redo: "m15.5 5 4.5 4.5-4.5 4.5M19.5 9.5H10a5 5 0 0 0 0 10h4",
  search: "M10.5 4.5a6 6 0 1 0 0 12 6 6 0 0 0 0-12ZM15 15l5 5",
  up: "m6 15 6-6 6 6",
  down: "m6 9 6 6 6-6",
  upload: "M12 16V4.5M7 9l5-5 5 5M4.5 15v3.5A1.5 1.5 0 0 0 6 20h12a1.5 1.5 0 0 0 1.5-1.5V15",
  export: "M12 4v11.5M7 11l5 5 5-5M4.5 19.5h15",
  delete: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.5 10.5v5.5M13.5 10.5v5.5",
  pencil: "M5 19l.8-3.8L16 5l3 3L8.8 18.2z",
  close: "m6 6 12 12M18 6 6 18",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z",
  camera: "M3.5 7h11v10h-11zM14.5 11l6-3.5v9l-6-3.5",
  microphone: "M12 3.5a2.7 2.7 0 0 0-2.7 2.7v5.3a2.7 2.7 0 0 0 5.4 0V6.2A2.7 2.7 0 0 0 12 3.5ZM6 11.5a6 6 0 0 0 12 0M12 17.5V21",
  video: "M4 5.5h16v13H4zM10 9.5v5l4.5-2.5z",
  check: "m5 12.5 4.5 4.5L19 7.5",
  warning: "M12 4 2.8 19.5h18.4zM12 10v4.5M12 17v.2",
  keyboard: "M3 7h18v10.5H3zM6.5 10.5h.1M10 10.5h.1M13.5 10.5h.1M17 10.5h.1M8 14.3h8",
} as const;

const FILLED = new Set<IconName>(["play", "pause"]);

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class={FILLED.has(name) ? "icon filled" : "icon"} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
