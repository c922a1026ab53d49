// One connection to a live feed, kept up: opened again after it broke, was ended by the gateway or
// refused. Runs in a page or in the worker that pages share; knows nothing of either.

/** What a source tells. `topics` are names of server-sent events; their data is not looked at. */
export type LiveNews =
  | { kind: "open" }
  | { kind: "topic"; topic: string }
  | { kind: "lost" }
  /** The login may be over, or the gateway is leaving: somebody should ask who we are. */
  | { kind: "ended" };

/** Milliseconds until a feed that was ended or refused is asked for again. */
export const RETRY = 3000;

type Source = Pick<EventSource, "addEventListener" | "close" | "readyState"> & {
  onopen: (() => void) | null;
  onerror: (() => void) | null;
};

/** Opens `url` and tells until the returned function is called. */
export function openSource(
  url: string,
  topics: readonly string[],
  tell: (news: LiveNews) => void,
  connect: (url: string) => Source = (at) => new EventSource(at) as Source,
): () => void {
  let source: Source;
  let retry: ReturnType<typeof setTimeout> | undefined;

  const start = () => {
    source = connect(url);
    for (const topic of topics)
      source.addEventListener(topic, () => tell({ kind: "topic", topic }));
    // The login behind the feed ended, or the gateway is leaving: the server closes after this.
    source.addEventListener("end", () => {
      source.close();
      comeBack();
    });
    source.onopen = () => {
      tell({ kind: "open" });
    };
    source.onerror = () => {
      tell({ kind: "lost" });
      // The browser retries a broken feed, but not a refused one (401, or 502 from a proxy while
      // the gateway restarts).
      if (source.readyState === EventSource.CLOSED) comeBack();
    };
  };
  const comeBack = () => {
    tell({ kind: "ended" });
    clearTimeout(retry);
    retry = setTimeout(start, RETRY);
  };

  start();
  return () => {
    clearTimeout(retry);
    source.close();
  };
}
