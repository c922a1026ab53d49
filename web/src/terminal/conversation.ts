// What goes into the terminal engine, what comes out of it, and what it shows: the vocabulary between
// engine.ts, which decides, and connection.ts, which carries out.

export type Mode = "own" | "observe" | "join";

export type EngineEvent =
  | { type: "start" }
  | { type: "ticketGranted"; token: string | null }
  | { type: "ticketRefused"; status: number; code: string; message: string; retryAfter?: number }
  | { type: "socketOpened" }
  | { type: "textReceived"; text: string }
  | { type: "bytesReceived"; data: Uint8Array }
  | { type: "socketClosed"; code: number; reason: string }
  | { type: "written"; bytes: number; generation: number }
  | { type: "typed"; data: Uint8Array }
  | { type: "resized"; cols: number; rows: number }
  | { type: "retryNow" }
  | { type: "tick" };

export type Command =
  | { type: "authorise"; cols: number; rows: number }
  | { type: "connect" }
  | { type: "sendText"; text: string }
  | { type: "sendBytes"; data: Uint8Array }
  | { type: "closeSocket" }
  /** Show these bytes, then answer with `written` carrying the same generation. */
  | { type: "write"; data: Uint8Array; generation: number }
  /** `bytes` of output are gone for good; say so on screen. `early`: it is the start of a long session. */
  | { type: "skipped"; bytes: number; early: boolean }
  /** The session's size, decided by its owner; observers follow it. */
  | { type: "adoptSize"; cols: number; rows: number };

export type Phase =
  | "idle"
  | "authorising"
  | "connecting"
  | "attached"
  | "waiting"
  | "ended"
  | "failed";

export interface View {
  phase: Phase;
  sessionId: string | null;
  /** Milliseconds of the last ping; null before the first. */
  rtt: number | null;
  /** The machine's link is away; the shell lives on there. */
  trunkLost: boolean;
  /** When the next attempt is due (same clock as `now`); only while waiting. */
  retryAt: number | null;
  attempt: number;
  exit: { code: number | null; signal: string | null } | null;
  failure: { code: string; message: string; status: number } | null;
  /** Bytes typed that the machine has not confirmed. */
  pendingInput: number;
  others: string[];
  /** The shell has shown something; before that the machine is still being asked for it. */
  started: boolean;
}
