/** Human-readable times, dates and sizes. */

import { strings } from "./i18n/en";

/** Format as "0:05", "12:34" or "1:02:03". */
export function formatTime(timeS: number): string {
  const total = Math.max(0, Math.floor(timeS));
  const pad = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes, seconds] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(seconds)}` : `${minutes}:${pad(seconds)}`;
}

/** Format as "about 2 minutes left". */
export function formatTimeLeft(leftS: number): string {
  if (leftS < 10) return strings.time.fewSeconds;
  if (leftS < 90) return strings.time.seconds(Math.ceil(leftS / 10) * 10);
  if (leftS < 5400) return strings.time.minutes(Math.round(leftS / 60));
  return strings.time.hours(Math.round(leftS / 3600));
}

/** Format an ISO 8601 date in the browser's locale. */
export function formatDate(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** Format as "4.2 MB". */
export function formatSize(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** Estimates the remaining time from an exponential moving average of the rate of progress. */
export class EtaEstimator {
  private last: { timeS: number; fraction: number } | null = null;
  private rate = 0;

  /** Record the progress, 0 to 1; return the seconds left, or null if not known yet. */
  update(fraction: number, nowS: number): number | null {
    if (!this.last || fraction < this.last.fraction) {
      this.last = { timeS: nowS, fraction };
      return null;
    }
    const elapsedS = nowS - this.last.timeS;
    if (fraction > this.last.fraction && elapsedS > 0.2) {
      const currentRate = (fraction - this.last.fraction) / elapsedS;
      this.rate = this.rate ? this.rate * 0.7 + currentRate * 0.3 : currentRate;
      this.last = { timeS: nowS, fraction };
    }
    const sinceS = nowS - this.last.timeS;
    return this.rate > 0 ? Math.max(0, (1 - fraction) / this.rate - sinceS) : null;
  }
}
