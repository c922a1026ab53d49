// The live feed: what changed on the gateway makes the matching queries fetch again, so that pages
// never poll and never need a reload. All tabs of a browser share one connection where there are
// shared workers; elsewhere (Android) each has its own while it is looked at.

import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";
import { useAccount } from "./account";
import type { LiveAsked } from "./live-hub";
import { type LiveNews, openSource } from "./live-source";

/** Topic of the feed -> first element of the query keys it makes stale. */
const TOPICS: Record<string, readonly string[]> = {
  agent: ["machines", "machine"],
  enrolment: ["enrolments", "machines"],
  session: ["sessions", "machines", "machine"],
  recording: ["recordings"],
  mapping: ["mappings", "mapping"],
  event: ["events"],
};
/** The gateway could not keep up with us and says that something was missed. */
const MISSED = "resync";
const HEARD = [...Object.keys(TOPICS), MISSED];

/** Hundreds of agents may return within seconds of a restart: one fetch per beat is enough. */
const BEAT = 400;

let connected = true;
const listeners = new Set<() => void>();
const setConnected = (value: boolean) => {
  if (connected === value) return;
  connected = value;
  for (const listener of listeners) listener();
};

export const useLiveConnected = (): boolean =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
    () => connected,
  );

/** Listens as user `as`; the returned function stops. */
type Listen = (url: string, as: string, tell: (news: LiveNews) => void) => () => void;

const shared: Listen = (url, as, tell) => {
  const worker = new SharedWorker(new URL("./live-worker.ts", import.meta.url), {
    type: "module",
    name: "underpass-live",
  });
  const ask = (asked: LiveAsked) => worker.port.postMessage(asked);
  const listen = () =>
    ask({ kind: "listen", url: new URL(url, location.href).href, topics: HEARD, as });
  // The worker is not told when a page goes; a page kept for "back" listens again when it returns.
  const leave = () => ask({ kind: "leave" });
  const back = ({ persisted }: PageTransitionEvent) => {
    if (!persisted) return;
    listen();
    tell({ kind: "topic", topic: MISSED });
  };
  // A worker that cannot be loaded must not cost the news: this page then listens by itself.
  let own: (() => void) | undefined;
  worker.onerror = () => {
    own ??= alone(url, as, tell);
  };
  worker.port.onmessage = ({ data }: MessageEvent<LiveNews>) => tell(data);
  listen();
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", back);
  return () => {
    window.removeEventListener("pagehide", leave);
    window.removeEventListener("pageshow", back);
    leave();
    worker.port.close();
    own?.();
  };
};

/** A connection of this page's own, for as long as somebody looks at it. */
const alone: Listen = (url, _as, tell) => {
  let close: (() => void) | undefined = openSource(url, HEARD, tell);
  const look = () => {
    if (document.hidden) {
      close?.();
      close = undefined;
    } else if (!close) {
      close = openSource(url, HEARD, tell);
      tell({ kind: "topic", topic: MISSED });
    }
  };
  document.addEventListener("visibilitychange", look);
  return () => {
    document.removeEventListener("visibilitychange", look);
    close?.();
  };
};

export function openLiveFeed(queries: QueryClient, as: string, url = "/api/v1/live"): () => void {
  const stale = new Set<string>();
  let beat: ReturnType<typeof setTimeout> | undefined;

  const refetch = () => {
    beat = undefined;
    for (const key of stale) void queries.invalidateQueries({ queryKey: [key] });
    stale.clear();
  };
  const mark = (topic: string) => {
    for (const key of TOPICS[topic] ?? []) stale.add(key);
    beat ??= setTimeout(refetch, BEAT);
  };
  const everything = () => {
    for (const topic of Object.keys(TOPICS)) mark(topic);
  };
  const listen = typeof SharedWorker === "undefined" ? alone : shared;
  const stop = listen(url, as, (news) => {
    if (news.kind === "topic") return news.topic === MISSED ? everything() : mark(news.topic);
    if (news.kind === "lost") return setConnected(false);
    if (news.kind === "open") {
      setConnected(true);
      // Also the first time: what a page has read before may have changed until it could hear so.
      return everything();
    }
    // Asking who we are tells a lost login from a lost gateway: nobody leads to the sign-in page.
    return void queries.invalidateQueries({ queryKey: ["me"] });
  });
  return () => {
    clearTimeout(beat);
    stop();
  };
}

export function useLiveFeed(): void {
  const queries = useQueryClient();
  const { id } = useAccount();
  useEffect(() => openLiveFeed(queries, id), [queries, id]);
}
