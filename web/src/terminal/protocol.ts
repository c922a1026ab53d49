// The words spoken on `/api/v1/tty/ws` (spec 1 "Framing", spec 7 "Terminal socket"): which text
// messages exist, how they are read, and which close codes are final. Nothing here does I/O.

export type ServerMessage =
  | { type: "session"; sessionId: string; cols?: number; rows?: number }
  | { type: "resumed"; offset: number; inputOffset?: number }
  | { type: "ack"; input: number }
  | { type: "pong"; t: number }
  | { type: "ping"; t: number }
  | { type: "exit"; code: number | null; signal: string | null }
  | { type: "error"; code: string; message: string }
  | { type: "state"; trunk: "attached" | "lost" }
  | { type: "resize"; cols: number; rows: number }
  | { type: "attached" | "detached"; user: string };

/** Bytes the gateway may send before the first credit (spec 7). */
export const INITIAL_CREDIT = 256 * 1024;
/** Credit is handed back in steps, so that a flood does not cost a message per chunk. */
export const CREDIT_STEP = 64 * 1024;
/** Input in flight (sent, not acknowledged by the agent); the gateway buffers as much. */
export const INPUT_WINDOW = 64 * 1024;
/** Input kept in all: a large paste waits here while the agent takes it in. */
export const INPUT_LIMIT = 4 * 1024 * 1024;
/** What may be typed blind while there is no connection. More would be a surprise later. */
export const OFFLINE_INPUT_LIMIT = 4 * 1024;
/** One WebSocket message of input stays below the frame cap of the terminal wire (64 KiB). */
export const INPUT_CHUNK = 16 * 1024;

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const count = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;

/** Reads one text message; anything unknown, malformed or absurd is `null` and changes nothing. */
export function readServerMessage(raw: string): ServerMessage | null {
  let body: unknown;
  try {
    body = JSON.parse(raw);
  } catch {
    return null;
  }
  if (typeof body !== "object" || body === null) return null;
  const message = body as Record<string, unknown>;
  switch (message.type) {
    case undefined:
    case "session": {
      // The very first answer carries no type: {"session_id": "…"}.
      const sessionId = text(message.session_id);
      if (!sessionId) return null;
      return { type: "session", sessionId, cols: count(message.cols), rows: count(message.rows) };
    }
    case "resumed": {
      const offset = count(message.offset);
      if (offset === undefined) return null;
      return { type: "resumed", offset, inputOffset: count(message.input_offset) };
    }
    case "ack": {
      const input = count(message.input);
      return input === undefined ? null : { type: "ack", input };
    }
    case "ping":
    case "pong":
      return typeof message.t === "number" ? { type: message.type, t: message.t } : null;
    case "exit":
      return {
        type: "exit",
        code: typeof message.code === "number" ? message.code : null,
        signal: text(message.signal) || null,
      };
    case "error":
      return { type: "error", code: text(message.code), message: text(message.message) };
    case "state":
      if (message.trunk !== "attached" && message.trunk !== "lost") return null;
      return { type: "state", trunk: message.trunk };
    case "resize": {
      const cols = count(message.cols);
      const rows = count(message.rows);
      if (!cols || !rows || cols > 1000 || rows > 1000) return null;
      return { type: "resize", cols, rows };
    }
    case "attached":
    case "detached":
      return { type: message.type, user: text(message.user) };
    default:
      return null;
  }
}

export type Verdict = "final" | "retry" | "fresh-ticket";

/**
 * What a close code means for us. `resumable` says that a session exists which we may return to.
 * Codes below 4000 other than 1000 are the network's doing (1001 gateway leaving, 1006 lost).
 */
export function judgeClose(code: number, resumable: boolean): Verdict {
  switch (code) {
    case 1000: // ended
    case 4400: // we said something wrong; saying it again will not help
    case 4403: // forbidden
    case 4404: // no such session
    case 4502: // agent lost for good
      return "final";
    case 4401: // the ticket was stale, or the login is gone: a new ticket tells which
      return "fresh-ticket";
    case 4409: // wrong state: while a session lives this passes (restart, machine relinking)
    case 4429: // too many: passes too, but a first opening should say so at once
      return resumable ? "retry" : "final";
    default:
      return "retry";
  }
}

/** The same question for the HTTP answer to `tty/authorize`. */
export function judgeRefusal(status: number, resumable: boolean): Verdict {
  if (status === 401 || status === 403 || status === 404) return "final";
  if (status === 409 || status === 429) return resumable ? "retry" : "final";
  if (status >= 400 && status < 500) return "final";
  return resumable || status === 0 || status >= 500 ? "retry" : "final";
}

/** Milliseconds to wait before attempt `attempt` (0-based): doubling, capped, jittered ±25 %. */
export function backoff(attempt: number, random: () => number): number {
  const base = Math.min(250 * 2 ** Math.min(attempt, 10), 15_000);
  return Math.round(base * (0.75 + random() * 0.5));
}
