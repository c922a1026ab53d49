// Numbers and times as people read them, in the chosen language.

import { locale } from "../i18n";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

const DECIMAL = ["B", "kB", "MB", "GB", "TB", "PB"] as const;

/** Of quotas, which the command line and the gateway's own words count in powers of ten. */
export function amount(value: number): string {
  let size = value;
  let unit = 0;
  while (size >= 999.5 && unit < DECIMAL.length - 1) {
    size /= 1000;
    unit += 1;
  }
  const digits = size >= 100 || unit === 0 ? 0 : 1;
  return `${Number(size.toFixed(digits)).toLocaleString(locale())} ${DECIMAL[unit]}`;
}

export const percent = (value: number | null | undefined): string =>
  value === null || value === undefined ? "–" : `${Math.round(value)} %`;

/** 65 -> "1:05", 3700 -> "1:01:40". */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const pad = (n: number) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

/** "3 minutes ago"; for a machine seen within seconds, "now". */
export function ago(time: string | null | undefined, now: number = Date.now()): string {
  if (!time) return "–";
  const seconds = (Date.parse(time) - now) / 1000;
  if (Number.isNaN(seconds)) return "–";
  const format = new Intl.RelativeTimeFormat(locale(), { numeric: "auto", style: "short" });
  if (Math.abs(seconds) < 45) return format.format(0, "second");
  const [unit, size] = STEPS.find(([, step]) => Math.abs(seconds) >= step) ?? ["second", 1];
  return format.format(Math.round(seconds / size), unit);
}

export const moment = (time: string | number | null | undefined): string =>
  time === null || time === undefined || time === ""
    ? "–"
    : new Date(time).toLocaleString(locale(), { dateStyle: "medium", timeStyle: "medium" });

/** Uptime: the two largest units are enough. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return "–";
  const parts: string[] = [];
  let rest = Math.floor(seconds);
  for (const [unit, size] of STEPS) {
    const count = Math.floor(rest / size);
    rest %= size;
    if (count && parts.length < 2)
      parts.push(
        new Intl.NumberFormat(locale(), { style: "unit", unit, unitDisplay: "narrow" }).format(
          count,
        ),
      );
  }
  return parts.join(" ") || "0 s";
}

/** The first and last bytes of a key fingerprint, enough to compare by eye; the whole is in the title. */
export function shortFingerprint(fingerprint: string): string {
  const hex = fingerprint.replace(/^sha256:/, "");
  return hex.length > 24 ? `${hex.slice(0, 12)}…${hex.slice(-8)}` : hex;
}
