/** Times for people. */

import { strings } from "./i18n/en";

/** "0:05", "12:34", "1:02:03". */
export function formatTime(timeS: number): string {
  const total = Math.max(0, Math.floor(timeS));
  const pad = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes, seconds] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(seconds)}` : `${minutes}:${pad(seconds)}`;
}

/** "about 2 minutes left". */
export function formatTimeLeft(leftS: number): string {
  if (leftS < 10) return strings.time.fewSeconds;
  if (leftS < 90) return strings.time.seconds(Math.ceil(leftS / 10) * 10);
  if (leftS < 5400) return strings.time.minutes(Math.round(leftS / 60));
  return strings.time.hours(Math.round(leftS / 3600));
}

/** "21 Nov, 14:05", in the reader's own habit. */
export function formatDate(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** "4.2 MB". */
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

/**
 * How long something that goes on will still take, from how it went so far: the newest stretch counts most, since
 * steps differ in speed.
 */
export class EtaEstimator {
  private last: { atS: number; share: number } | null = null;
  private rate = 0;

  /** Tell how far it is, 0 to 1; gives the seconds left, or null where that is not known yet. */
  update(share: number, nowS: number): number | null {
    if (!this.last || share < this.last.share) {
      this.last = { atS: nowS, share };
      return null;
    }
    const passed = nowS - this.last.atS;
    if (share > this.last.share && passed > 0.2) {
      const newest = (share - this.last.share) / passed;
      this.rate = this.rate ? this.rate * 0.7 + newest * 0.3 : newest;
      this.last = { atS: nowS, share };
    }
    const sinceS = nowS - this.last.atS;
    return this.rate > 0 ? Math.max(0, (1 - share) / this.rate - sinceS) : null;
  }
}
