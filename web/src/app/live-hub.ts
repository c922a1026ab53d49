// Many pages, one feed: a browser has six connections to a gateway that speaks HTTP/1.1, and a feed
// for each tab would leave the seventh tab waiting for ever. Lives in a shared worker
// (live-worker.ts).

import { type LiveNews, openSource } from "./live-source";

/** What a page asks of the hub. */
export type LiveAsked =
  | { kind: "listen"; url: string; topics: readonly string[]; as: string }
  | { kind: "leave" };

export interface Listener {
  postMessage: (news: LiveNews) => void;
}

/** Opens the feed for the first listener, shares it, and closes it behind the last one. */
export class LiveHub {
  private readonly listeners = new Set<Listener>();
  private close: (() => void) | null = null;
  private as = "";
  private open = false;

  constructor(private readonly connect: typeof openSource = openSource) {}

  get size(): number {
    return this.listeners.size;
  }

  receive(from: Listener, asked: LiveAsked): void {
    if (asked.kind === "leave") this.leave(from);
    else this.listen(from, asked);
  }

  private listen(from: Listener, asked: Extract<LiveAsked, { kind: "listen" }>): void {
    // Somebody else has signed in, in this browser: the feed there is carries the old login.
    if (this.close && this.as !== asked.as) this.shut();
    this.listeners.add(from);
    if (this.open) from.postMessage({ kind: "open" });
    if (this.close) return;
    this.as = asked.as;
    this.close = this.connect(asked.url, asked.topics, (news) => {
      if (news.kind !== "topic") this.open = news.kind === "open";
      for (const listener of this.listeners) listener.postMessage(news);
    });
  }

  private leave(from: Listener): void {
    this.listeners.delete(from);
    if (!this.listeners.size) this.shut();
  }

  private shut(): void {
    this.close?.();
    this.close = null;
    this.open = false;
  }
}
