/** What the whole page shares: where it is, the API, messages, the theme. */

import { signal } from "@preact/signals";
import type { Api } from "./api";

export type Route = { page: "home" } | { page: "job"; id: string } | { page: "live" } | { page: "session"; id: string } | { page: "unknown" };

export const route = signal<Route>(parseRoute(location.hash));

/** Set once, before the first page is shown. */
export const api = signal<Api>(null as unknown as Api);

export const isSignedIn = signal(true);

export interface Toast {
  id: number;
  kind: "info" | "error";
  text: string;
}

export const toasts = signal<Toast[]>([]);

/** Videos that were chosen in this page: they play from here, without being fetched. */
export const localVideos = new Map<string, Blob>();

let lastNotice = 0;

/** Tell people something; errors stay until they are dismissed. */
export function notify(text: string, kind: Toast["kind"] = "info"): void {
  const id = ++lastNotice;
  toasts.value = [...toasts.value.slice(-3), { id, kind, text }];
  if (kind === "info") setTimeout(() => dismiss(id), 6000);
}

export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((notice) => notice.id !== id);
}

export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

window.addEventListener("hashchange", () => {
  route.value = parseRoute(location.hash);
});

export function parseRoute(hash: string): Route {
  const [page = "", id = "", ...rest] = hash.replace(/^#\/?/, "").split("/");
  if (rest.length) return { page: "unknown" };
  if (page === "") return { page: "home" };
  if (page === "live" && !id) return { page: "live" };
  if ((page === "jobs" || page === "sessions") && /^[\w-]{1,100}$/.test(id)) return { page: page === "jobs" ? "job" : "session", id };
  return { page: "unknown" };
}

// ------------------------------------------------------------------------------------------------------------ theme

export type Theme = "light" | "dark";

const system = window.matchMedia("(prefers-color-scheme: dark)");

export const theme = signal<Theme>(storedTheme() ?? (system.matches ? "dark" : "light"));

system.addEventListener("change", () => {
  if (!storedTheme()) theme.value = system.matches ? "dark" : "light";
});

theme.subscribe((value) => {
  document.documentElement.dataset.theme = value;
});

export function toggleTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  saveItem("theme", theme.value);
}

function storedTheme(): Theme | null {
  const stored = loadItem("theme");
  return stored === "light" || stored === "dark" ? stored : null;
}

// ---------------------------------------------------------------------------------------------------------- storage

// Browsers may forbid storage; then nothing is kept, and everything else works.

export function loadItem(name: string): string | null {
  try {
    return localStorage.getItem(`gorggle.${name}`);
  } catch {
    return null;
  }
}

/** Keep a text in this browser; null takes it away. False where there is no room, or none is permitted. */
export function saveItem(name: string, value: string | null): boolean {
  try {
    if (value === null) localStorage.removeItem(`gorggle.${name}`);
    else localStorage.setItem(`gorggle.${name}`, value);
    return true;
  } catch {
    return false;
  }
}
