import type { QueryClient } from "@tanstack/react-query";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { openLiveFeed } from "./live";

/** The one feed of a page without shared workers. */
class Feed {
  static all: Feed[] = [];
  onopen?: () => void;
  onerror?: () => void;
  readyState = 1;
  readonly heard = new Map<string, () => void>();
  constructor() {
    Feed.all.push(this);
  }
  addEventListener(topic: string, call: () => void) {
    this.heard.set(topic, call);
  }
  close() {
    this.readyState = 2;
  }
}
const page = { hidden: false, look: () => {} };
const asked: string[] = [];
const queries = {
  invalidateQueries: ({ queryKey }: { queryKey: string[] }) => asked.push(queryKey[0] ?? ""),
} as unknown as QueryClient;
const takeAsked = () => {
  vi.advanceTimersByTime(500);
  return asked.splice(0);
};

beforeEach(() => {
  Feed.all = [];
  page.hidden = false;
  vi.useFakeTimers();
  vi.stubGlobal("EventSource", Feed);
  vi.stubGlobal("document", {
    get hidden() {
      return page.hidden;
    },
    addEventListener: (_: string, call: () => void) => {
      page.look = call;
    },
    removeEventListener: () => {},
  });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("reads again what was read before it could hear, then only what news are about", () => {
  const stop = openLiveFeed(queries, "ann");
  const [feed] = Feed.all;
  expect(takeAsked()).toEqual([]);
  feed?.onopen?.();
  expect(takeAsked()).toEqual(expect.arrayContaining(["machines", "mapping", "events"]));
  feed?.heard.get("mapping")?.();
  feed?.heard.get("mapping")?.();
  expect(takeAsked()).toEqual(["mappings", "mapping"]);
  feed?.heard.get("resync")?.();
  expect(takeAsked()).toContain("sessions");
  stop();
  expect(feed?.readyState).toBe(2);
});

it("keeps no connection while nobody looks, and catches up afterwards", () => {
  const stop = openLiveFeed(queries, "ann");
  page.hidden = true;
  page.look();
  expect(Feed.all.map((one) => one.readyState)).toEqual([2]);
  page.hidden = false;
  page.look();
  page.look();
  expect(Feed.all.map((one) => one.readyState)).toEqual([2, 1]);
  expect(takeAsked()).toContain("machines");
  stop();
  expect(Feed.all.map((one) => one.readyState)).toEqual([2, 2]);
});
