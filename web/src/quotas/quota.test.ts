import { expect, it } from "vitest";
import type { Quota } from "../api/types";
import { amount } from "../app/format";
import { draftOf, isLimited, LIMITS, share, shownWithTunnels, toChange } from "./quota";

const made = (change: Partial<Quota> = {}): Quota => ({
  user_id: "u1",
  max_mappings: null,
  max_active_mappings: null,
  max_connections_per_mapping: null,
  bandwidth: null,
  monthly_traffic: null,
  max_sessions: null,
  usage: {
    mappings: 3,
    active_mappings: 2,
    sessions: 1,
    connections: 4,
    traffic: 7_500_000_000,
    month: "2026-01",
    renews_at: "2026-02-01T00:00:00.000Z",
  },
  ...change,
});
const of = (name: string) => LIMITS.find((one) => one.name === name) as (typeof LIMITS)[number];

it("says how much of a limit is used, never more than all of it", () => {
  const quota = made({ monthly_traffic: 10_000_000_000, max_mappings: 2, max_sessions: 0 });
  expect(share(quota, of("monthly_traffic"))).toBe(75);
  expect(share(quota, of("max_mappings"))).toBe(100);
  expect(share(quota, of("max_sessions"))).toBe(100);
});

it("has no bar where nothing is limited or nothing adds up", () => {
  const quota = made({ bandwidth: 1_000_000, max_connections_per_mapping: 20 });
  for (const name of ["max_mappings", "bandwidth", "max_connections_per_mapping"])
    expect(share(quota, of(name))).toBeUndefined();
  expect(isLimited(quota)).toBe(true);
  expect(isLimited(made())).toBe(false);
});

it("shows beside tunnels what can stand in their way", () => {
  const quota = made({ monthly_traffic: 1, max_sessions: 1, bandwidth: 5000 });
  expect(shownWithTunnels(quota).map(({ name }) => name)).toEqual(["monthly_traffic"]);
});

it("changes only what was changed, and keeps odd numbers as they are", () => {
  const seen = made({ monthly_traffic: 10_000_000_000, bandwidth: 1_234_567, max_mappings: 5 });
  const draft = draftOf(seen);
  expect(draft.monthly_traffic).toEqual({ value: 10, unit: 1e9 });
  expect(draft.bandwidth).toEqual({ value: 1_234_567, unit: 1 });
  expect(toChange(seen, draft)).toEqual({});
  draft.monthly_traffic = { value: 1.5, unit: 1e12 };
  draft.max_mappings = { value: "", unit: 1 };
  draft.max_sessions = { value: 0, unit: 1 };
  expect(toChange(seen, draft)).toEqual({
    monthly_traffic: 1_500_000_000_000,
    max_mappings: null,
    max_sessions: 0,
  });
});

it("writes amounts as the command line does", () => {
  const shown = [0, 999, 1000, 1_250_000, 9_996_000_000, 10_000_000_000, 999_999].map(amount);
  expect(shown).toEqual(["0 B", "999 B", "1 kB", "1.3 MB", "10 GB", "10 GB", "1 MB"]);
});
