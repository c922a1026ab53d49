// What a quota says, without asking anybody: what is used of each limit, and the form behind it.

import type { LimitName, Quota } from "../api/types";

type Kind = "count" | "bytes" | "rate";

export interface Limit {
  name: LimitName;
  kind: Kind;
  /** What of the usage counts against it; nothing where only each thing by itself is limited. */
  used: ((usage: Quota["usage"]) => number) | null;
}

/** In the order of `underpass quota`, without those nothing counts against yet. */
export const LIMITS: readonly Limit[] = [
  { name: "monthly_traffic", kind: "bytes", used: (usage) => usage.traffic },
  { name: "bandwidth", kind: "rate", used: null },
  { name: "max_mappings", kind: "count", used: (usage) => usage.mappings },
  { name: "max_active_mappings", kind: "count", used: (usage) => usage.active_mappings },
  { name: "max_connections_per_mapping", kind: "count", used: null },
  { name: "max_sessions", kind: "count", used: (usage) => usage.sessions },
];

/** Of a limit, in percent and at most 100; undefined where there is none, or nothing to count. */
export function share(quota: Quota, { name, used }: Limit): number | undefined {
  const limit = quota[name];
  if (limit === null || !used) return undefined;
  // Of a limit of nothing everything is used.
  return limit === 0 ? 100 : Math.min(100, (100 * used(quota.usage)) / limit);
}

export const isLimited = (quota: Quota): boolean => LIMITS.some(({ name }) => quota[name] !== null);

/** What the page of tunnels shows: limits that are counted and can stand in one's way there. */
export const shownWithTunnels = (quota: Quota): Limit[] =>
  LIMITS.filter((limit) => limit.name !== "max_sessions" && share(quota, limit) !== undefined);

/** Powers of ten, as the command line and the gateway's own words have them. */
export const UNITS = [1, 1e3, 1e6, 1e9, 1e12] as const;
export const UNIT_NAMES = ["B", "kB", "MB", "GB", "TB"] as const;

export interface Field {
  value: number | "";
  unit: number;
}
export type Draft = Record<LimitName, Field>;

const unitOf = (kind: Kind, value: number | null): number => {
  if (kind === "count") return 1;
  if (!value) return kind === "bytes" ? 1e9 : 1e6;
  // The largest that loses nothing: saving what was not touched must not change it.
  return UNITS.findLast((one) => value % one === 0) ?? 1;
};

export function draftOf(quota: Quota): Draft {
  const fields = LIMITS.map(({ name, kind }) => {
    const [value, unit] = [quota[name], unitOf(kind, quota[name])];
    return [name, { value: value === null ? "" : value / unit, unit }] as const;
  });
  return Object.fromEntries(fields) as Draft;
}

/** Only what differs, so that what somebody else changed meanwhile stays. Empty: no limit. */
export function toChange(seen: Quota, draft: Draft): Partial<Record<LimitName, number | null>> {
  const change: Partial<Record<LimitName, number | null>> = {};
  for (const { name } of LIMITS) {
    const { value, unit } = draft[name];
    const wanted = value === "" ? null : Math.round(value * unit);
    if (wanted !== seen[name]) change[name] = wanted;
  }
  return change;
}
