// What can be said about a machine without asking anybody: filters, states, the command that adds one.

import type { Machine } from "../api/types";

/** A shell needs the machine's agent; maintenance refuses new sessions (spec 1, Heartbeat). */
export const canOpenTerminal = (machine: Pick<Machine, "status">): boolean =>
  machine.status === "online" || machine.status === "degraded";

interface Wanted {
  labels: [string, string | null][];
  words: string[];
}

/**
 * `web env=prod` -> machines whose text contains "web" and whose label env is prod. A term with `=`
 * is a label (`env=` any value); the rest is text in name, host name, id, address, OS or labels.
 */
export function parseFilter(text: string): Wanted {
  const wanted: Wanted = { labels: [], words: [] };
  for (const term of text.trim().toLowerCase().split(/\s+/).filter(Boolean)) {
    const split = term.indexOf("=");
    if (split > 0) wanted.labels.push([term.slice(0, split), term.slice(split + 1) || null]);
    else wanted.words.push(term);
  }
  return wanted;
}

export function matches(machine: Machine, { labels, words }: Wanted): boolean {
  const own = Object.entries(machine.labels).map(
    ([k, v]) => [k.toLowerCase(), v.toLowerCase()] as const,
  );
  for (const [key, value] of labels)
    if (!own.some(([k, v]) => k === key && (value === null || v === value))) return false;
  if (!words.length) return true;
  const { os, os_version } = machine.static_info;
  const text = [
    machine.name,
    machine.hostname,
    machine.id,
    machine.address,
    machine.status,
    os,
    os_version,
    ...own.flat(),
  ]
    .join(" ")
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

const RANK = { online: 0, degraded: 1, maintenance: 2, offline: 3 } as const;

/** Those one can use first, then by name, numbers inside names by value (web-2 before web-10). */
const byName = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
export const compareMachines = (a: Machine, b: Machine): number =>
  RANK[a.status] - RANK[b.status] || byName.compare(a.name, b.name);

/** `env=prod, role=web` and back; null when a part is no label. */
export const labelsToText = (labels: Record<string, string>): string[] =>
  Object.entries(labels).map(([key, value]) => `${key}=${value}`);

export function textToLabels(parts: readonly string[]): Record<string, string> | null {
  const labels: Record<string, string> = {};
  for (const part of parts) {
    const split = part.indexOf("=");
    if (split < 1) return null;
    labels[part.slice(0, split).trim()] = part.slice(split + 1).trim();
  }
  return labels;
}

/** The memory share, whichever of its two forms the agent reported. */
export function memoryPercent({ dynamic_info: info }: Machine): number | undefined {
  if (info.memory_percent !== undefined) return info.memory_percent;
  if (info.memory_used === undefined || !info.memory_total) return undefined;
  return (info.memory_used / info.memory_total) * 100;
}
