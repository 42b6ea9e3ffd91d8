/** State shared by all pages: route, API client, toasts, theme, local storage. */

import { signal } from "@preact/signals";
import type { Api } from "./api";

export type Route = { page: "home" } | { page: "job"; id: string } | { page: "live" } | { page: "session"; id: string } | { page: "unknown" };

export const route = signal<Route>(parseRoute(location.hash));

/** Set once, before the first render. */
export const api = signal<Api>(null as unknown as Api);

export const isSignedIn = signal(true);

export interface Toast {
  id: number;
  kind: "info" | "error";
  text: string;
}

export const toasts = signal<Toast[]>([]);

/** Videos uploaded in this tab, by job ID: they play from memory instead of being downloaded. */
export const localVideos = new Map<string, Blob>();

let lastToastId = 0;

/** Show a toast; errors stay until they are dismissed. */
export function notify(text: string, kind: Toast["kind"] = "info"): void {
  const id = ++lastToastId;
  toasts.value = [...toasts.value.slice(-3), { id, kind, text }];
  if (kind === "info") setTimeout(() => dismissToast(id), 6000);
}

export function dismissToast(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

/** Return an error's message, beginning with a capital letter. */
export function errorMessage(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.charAt(0).toUpperCase() + message.slice(1);
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

const darkScheme = window.matchMedia("(prefers-color-scheme: dark)");

export const theme = signal<Theme>(loadTheme() ?? (darkScheme.matches ? "dark" : "light"));

darkScheme.addEventListener("change", () => {
  if (!loadTheme()) theme.value = darkScheme.matches ? "dark" : "light";
});

theme.subscribe((value) => {
  document.documentElement.dataset.theme = value;
});

export function toggleTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  saveItem("theme", theme.value);
}

function loadTheme(): Theme | null {
  const stored = loadItem("theme");
  return stored === "light" || stored === "dark" ? stored : null;
}

// ---------------------------------------------------------------------------------------------------------- storage

// Browsers may deny access to storage; the page works without it.

export function loadItem(name: string): string | null {
  try {
    return localStorage.getItem(`gorggle.${name}`);
  } catch {
    return null;
  }
}

/** Save a string in the browser; null removes it. Returns false if storage is full or denied. */
export function saveItem(name: string, value: string | null): boolean {
  try {
    if (value === null) localStorage.removeItem(`gorggle.${name}`);
    else localStorage.setItem(`gorggle.${name}`, value);
    return true;
  } catch {
    return false;
  }
}
