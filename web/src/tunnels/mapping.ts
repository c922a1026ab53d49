// What can be said about a mapping without asking anybody: where it comes in, where it goes, how fast.

import type { Mapping } from "../api/types";

const hostOf = (url: string): string => url.replace(/^[a-z0-9]+:\/\//, "").replace(/:\d+$/, "");

/** `gw.example.org:20017`, a range with both its ends; null where only a machine listens. */
export function publicAddress({ public_url, source }: Mapping): string | null {
  if (!public_url) return null;
  if (source.port_range) return `${hostOf(public_url)}:${source.port_range}`;
  return public_url.replace(/^[a-z0-9]+:\/\//, "");
}

/** What one pastes elsewhere: programs want a SOCKS5 address as a URL, all others host and port. */
export function addressToCopy(mapping: Mapping): string | null {
  return mapping.protocol === "socks5" ? mapping.public_url : publicAddress(mapping);
}

/** Where it listens, as its machine's name and port, when that is not the gateway. */
export function listensAt({ source }: Mapping, nameOf: (id: string) => string): string | null {
  if (!source.client_id) return null;
  return `${nameOf(source.client_id)}:${source.port_range ?? source.port ?? "?"}`;
}

/** The target as its machine sees it; null for SOCKS5, whose clients name theirs. */
export function targetOf(mapping: Mapping): string | null {
  if (mapping.protocol === "socks5") return null;
  if (mapping.protocol === "unix") return mapping.target_path;
  const host = mapping.target_host ?? "127.0.0.1";
  const first = mapping.target_port ?? 0;
  const [from = 0, to = 0] = (mapping.source.port_range ?? "").split("-").map(Number);
  const shown = host.includes(":") ? `[${host}]` : host;
  return `${shown}:${to > from ? `${first}-${first + to - from}` : first}`;
}

export interface Rate {
  sent: number;
  received: number;
}

interface Sample extends Rate {
  at: number;
  rate: Rate | null;
}

/** Closer together, two answers say more about the network than about the mapping. */
const TOO_SOON = 900;
const FORGET_AFTER = 30_000;

/** Bytes a second from totals that are read again and again; the list of mappings has only totals. */
export class RateMeter {
  private readonly samples = new Map<string, Sample>();

  /**
   * The rate since the totals were last given, in bytes a second; null at the first time.
   * `now` in milliseconds.
   */
  take(id: string, totals: Rate, now: number): Rate | null {
    const last = this.samples.get(id);
    if (last && now - last.at < TOO_SOON) return last.rate;
    const seconds = last ? (now - last.at) / 1000 : 0;
    // Long ago is an average over a time nobody looked; smaller totals are another gateway's.
    const comparable = last && now - last.at < FORGET_AFTER && totals.sent >= last.sent;
    const rate = comparable
      ? {
          sent: (totals.sent - last.sent) / seconds,
          received: Math.max(0, totals.received - last.received) / seconds,
        }
      : null;
    this.samples.set(id, { ...totals, at: now, rate });
    return rate;
  }

  /** Drops what was not asked for in a while, so that deleted mappings leave nothing behind. */
  forget(now: number): void {
    for (const [id, { at }] of this.samples) if (now - at > FORGET_AFTER) this.samples.delete(id);
  }
}
