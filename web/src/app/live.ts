// The live feed: one EventSource for the whole page. What changed on the gateway makes the matching
// queries fetch again, so that pages never poll and never need a reload.

import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";

/** Topic of the feed -> first element of the query keys it makes stale. */
const TOPICS: Record<string, readonly string[]> = {
  agent: ["machines", "machine"],
  enrolment: ["enrolments", "machines"],
  session: ["sessions", "machines", "machine"],
  recording: ["recordings"],
  mapping: ["mappings", "mapping"],
  event: ["events"],
};

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

export function openLiveFeed(queries: QueryClient, url = "/api/v1/live"): () => void {
  const stale = new Set<string>();
  let source: EventSource;
  let beat: ReturnType<typeof setTimeout> | undefined;
  let retry: ReturnType<typeof setTimeout> | undefined;
  let interrupted = false;

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
  const connect = () => {
    source = new EventSource(url);
    for (const topic of Object.keys(TOPICS)) source.addEventListener(topic, () => mark(topic));
    // The gateway could not keep up with us and says that something was missed.
    source.addEventListener("resync", everything);
    // The login behind the feed ended, or the gateway is leaving: the server closes after this.
    source.addEventListener("end", () => {
      source.close();
      comeBack();
    });
    source.onopen = () => {
      setConnected(true);
      if (interrupted) everything();
      interrupted = false;
    };
    source.onerror = () => {
      interrupted = true;
      setConnected(false);
      // The browser retries a broken feed, but not a refused one (401, or 502 from a proxy while
      // the gateway restarts).
      if (source.readyState === EventSource.CLOSED) comeBack();
    };
  };
  const comeBack = () => {
    interrupted = true;
    // Asking who we are tells a lost login from a lost gateway: nobody leads to the sign-in page.
    void queries.invalidateQueries({ queryKey: ["me"] });
    clearTimeout(retry);
    retry = setTimeout(connect, 3000);
  };

  connect();
  return () => {
    clearTimeout(beat);
    clearTimeout(retry);
    source.close();
  };
}

export function useLiveFeed(): void {
  const queries = useQueryClient();
  useEffect(() => openLiveFeed(queries), [queries]);
}
