import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { LiveHub } from "./live-hub";
import { type LiveNews, openSource, RETRY } from "./live-source";

/** An EventSource whose events the test makes. */
class Feed {
  static readonly opened: Feed[] = [];
  readyState = 1;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  readonly heard = new Map<string, () => void>();
  constructor(readonly url: string) {
    Feed.opened.push(this);
  }
  addEventListener(topic: string, call: unknown) {
    this.heard.set(topic, call as () => void);
  }
  close() {
    this.readyState = 2;
  }
}

const feeds = Feed.opened;
const last = () => feeds[feeds.length - 1] as Feed;
const hub = () =>
  new LiveHub((url, topics, tell) =>
    openSource(url, topics, tell, (at) => new Feed(at) as unknown as EventSource as never),
  );
const page = () => {
  const told: LiveNews[] = [];
  return { told, postMessage: (news: LiveNews) => told.push(news) };
};
const listen = { kind: "listen", url: "/live", topics: ["agent", "resync"], as: "ann" } as const;
const leave = { kind: "leave" } as const;

beforeEach(() => {
  feeds.length = 0;
  vi.useFakeTimers();
  vi.stubGlobal("EventSource", { CLOSED: 2 });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("opens one feed for many pages and tells all of them", () => {
  const shared = hub();
  const pages = Array.from({ length: 7 }, page);
  for (const one of pages) shared.receive(one, listen);
  expect(feeds).toHaveLength(1);
  last().onopen?.();
  last().heard.get("agent")?.();
  for (const { told } of pages)
    expect(told).toEqual([{ kind: "open" }, { kind: "topic", topic: "agent" }]);
});

it("tells a page that comes later that the feed is open, and one that comes in a gap nothing", () => {
  const shared = hub();
  shared.receive(page(), listen);
  const early = page();
  shared.receive(early, listen);
  expect(early.told).toEqual([]);
  last().onopen?.();
  const late = page();
  shared.receive(late, listen);
  expect(late.told).toEqual([{ kind: "open" }]);
  last().onerror?.();
  const unlucky = page();
  shared.receive(unlucky, listen);
  expect(unlucky.told).toEqual([]);
});

it("goes on when the page that opened it leaves, and ends with the last one", () => {
  const shared = hub();
  const [first, second] = [page(), page()];
  shared.receive(first, listen);
  shared.receive(second, listen);
  shared.receive(first, leave);
  expect(last().readyState).toBe(1);
  last().heard.get("agent")?.();
  expect(second.told).toEqual([{ kind: "topic", topic: "agent" }]);
  expect(first.told).toEqual([]);
  shared.receive(second, leave);
  expect(last().readyState).toBe(2);
  expect(shared.size).toBe(0);
  shared.receive(first, listen);
  expect(feeds).toHaveLength(2);
});

it("does not go on with the login of who was signed in before", () => {
  const shared = hub();
  shared.receive(page(), listen);
  shared.receive(page(), { ...listen, as: "bob" });
  expect(feeds.map((one) => one.readyState)).toEqual([2, 1]);
});

it("comes back after the gateway ended it or refused it", () => {
  const shared = hub();
  const one = page();
  shared.receive(one, listen);
  last().onopen?.();
  last().heard.get("end")?.();
  expect(one.told.at(-1)).toEqual({ kind: "ended" });
  vi.advanceTimersByTime(RETRY);
  expect(feeds).toHaveLength(2);
  last().readyState = 2;
  last().onerror?.(); // refused: a 502 of a proxy, or 401
  expect(one.told.slice(-2)).toEqual([{ kind: "lost" }, { kind: "ended" }]);
  vi.advanceTimersByTime(RETRY);
  expect(feeds).toHaveLength(3);
  last().onopen?.();
  expect(one.told.at(-1)).toEqual({ kind: "open" });
});

it("leaves a feed that only broke to the browser, and never retries behind the last page", () => {
  const shared = hub();
  const one = page();
  shared.receive(one, listen);
  last().readyState = 0;
  last().onerror?.();
  vi.advanceTimersByTime(10 * RETRY);
  expect(feeds).toHaveLength(1);
  last().heard.get("end")?.();
  shared.receive(one, leave);
  vi.advanceTimersByTime(10 * RETRY);
  expect(feeds).toHaveLength(1);
});
