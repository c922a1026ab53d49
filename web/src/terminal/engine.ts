// The terminal's side of the conversation with the gateway, without a socket, a clock or a DOM:
// events in, commands out. It owns the offsets (what has been received, what has been typed), the
// credit, the ping deadline and the decision whether a broken connection is final or to be resumed.
//
// A shell (connection.ts) carries out the commands and feeds back what happened:
//
//   engine.handle({ type: "start" }, now)              -> [{ type: "authorise", … }]
//   engine.handle({ type: "ticketGranted", … }, now)   -> [{ type: "connect" }]
//   engine.handle({ type: "socketOpened" }, now)       -> [{ type: "sendText", … }]
//   …
//   engine.nextDeadline()                              -> when to call handle({ type: "tick" })

import type { Command, EngineEvent, Mode, Phase, View } from "./conversation";
import { InputLog } from "./input";
import {
  backoff,
  CREDIT_STEP,
  INPUT_LIMIT,
  judgeClose,
  judgeRefusal,
  OFFLINE_INPUT_LIMIT,
  readServerMessage,
  type ServerMessage,
} from "./protocol";

/** A ping goes out this often while attached. */
export const PING_EVERY = 10_000;
/** Nothing heard for this long after a ping: the connection is dead although nobody said so. */
export const PONG_DEADLINE = 10_000;
/** Authorising or opening the socket may take this long. */
export const CONNECT_DEADLINE = 15_000;
/** Sizes go out at most this often; the last one always does. */
export const RESIZE_EVERY = 80;

export interface EngineOptions {
  mode: Mode;
  cols: number;
  rows: number;
  /** A session to return to (page reload, observe, join); null starts a new one. */
  sessionId?: string | null;
  random?: () => number;
}

export class TerminalEngine {
  readonly mode: Mode;
  readonly #input = new InputLog();
  readonly #random: () => number;

  #phase: Phase = "idle";
  #sessionId: string | null;
  #ticket: string | null = null;
  /** Counts sockets. Bytes written for an older socket must not become credit on this one. */
  #generation = 0;
  /** Absolute offset of the next output byte we need. */
  #received = 0;
  /** Bytes at the head of the stream that we already have and must not show twice. */
  #overlap = 0;
  /** Whether any output position is known: false until the first attach. */
  #positioned = false;
  /** Bytes shown and not yet given back as credit. */
  #consumed = 0;
  /** After asking to resume, output is held back until the server has said where it continues. */
  #awaitingResumed = false;
  #size: { cols: number; rows: number };
  #sizeSent: { cols: number; rows: number };
  #sizeSentAt = Number.NEGATIVE_INFINITY;
  #rtt: number | null = null;
  #trunkLost = false;
  #pingSentAt: number | null = null;
  /** Nothing has been heard since the last ping went out. */
  #silent = true;
  #nextPingAt = 0;
  #deadline: number | null = null;
  #retryAt: number | null = null;
  #attempt = 0;
  #freshTickets = 0;
  #exit: View["exit"] = null;
  #failure: View["failure"] = null;
  #lastError: { code: string; message: string } | null = null;
  #others = new Set<string>();

  constructor(options: EngineOptions) {
    this.mode = options.mode;
    this.#sessionId = options.sessionId ?? null;
    this.#size = { cols: options.cols, rows: options.rows };
    this.#sizeSent = this.#size;
    this.#random = options.random ?? Math.random;
  }

  /** Output bytes of the session received so far. */
  get received(): number {
    return this.#received;
  }

  get view(): View {
    return {
      phase: this.#phase,
      sessionId: this.#sessionId,
      rtt: this.#rtt,
      trunkLost: this.#trunkLost,
      retryAt: this.#retryAt,
      attempt: this.#attempt,
      exit: this.#exit,
      failure: this.#failure,
      pendingInput: this.#input.pending,
      others: [...this.#others],
      started: this.#received > 0,
    };
  }

  /** The moment `tick` is next needed, or null when nothing is due. */
  nextDeadline(): number | null {
    const due: number[] = [];
    if (this.#deadline !== null) due.push(this.#deadline);
    if (this.#retryAt !== null) due.push(this.#retryAt);
    if (this.#phase === "attached") {
      due.push(this.#pingSentAt === null ? this.#nextPingAt : this.#pingSentAt + PONG_DEADLINE);
      if (this.#sizeChanged()) due.push(this.#sizeSentAt + RESIZE_EVERY);
    }
    return due.length ? Math.min(...due) : null;
  }

  handle(event: EngineEvent, now: number): Command[] {
    switch (event.type) {
      case "start":
        return this.#phase === "idle" ? this.#authorise(now) : [];
      case "ticketGranted":
        if (this.#phase !== "authorising") return [];
        this.#ticket = event.token;
        this.#phase = "connecting";
        this.#deadline = now + CONNECT_DEADLINE;
        return [{ type: "connect" }];
      case "ticketRefused":
        return this.#phase === "authorising" ? this.#refused(event, now) : [];
      case "socketOpened":
        return this.#phase === "connecting" ? this.#opened() : [];
      case "textReceived": {
        this.#heard();
        const message = readServerMessage(event.text);
        return message ? this.#message(message, now) : [];
      }
      case "bytesReceived":
        this.#heard();
        return this.#bytes(event.data, now);
      case "socketClosed":
        return this.#closed(event.code, event.reason, now);
      case "written":
        return this.#written(event.bytes, event.generation);
      case "typed":
        return this.#typed(event.data);
      case "resized":
        this.#size = { cols: event.cols, rows: event.rows };
        return this.#sendSize(now);
      case "retryNow":
        return this.#retryNow(now);
      case "tick":
        return this.#tick(now);
    }
  }

  #authorise(now: number): Command[] {
    this.#phase = "authorising";
    this.#retryAt = null;
    this.#deadline = now + CONNECT_DEADLINE;
    return [{ type: "authorise", ...this.#size }];
  }

  #opened(): Command[] {
    this.#generation += 1;
    this.#consumed = 0;
    this.#pingSentAt = null;
    const commands: Command[] = [];
    if (this.#ticket !== null) {
      commands.push({
        type: "sendText",
        text: JSON.stringify({ type: "auth", token: this.#ticket }),
      });
      this.#ticket = null; // burned by its first use, so never kept
    }
    this.#awaitingResumed = this.mode === "own" && this.#sessionId !== null;
    if (this.#awaitingResumed) {
      const resume = { type: "resume", session_id: this.#sessionId, offset: this.#received };
      commands.push({ type: "sendText", text: JSON.stringify(resume) });
    } else if (this.mode === "own") {
      // The gateway gives a new socket a moment to say `resume`; any other message says that none
      // will come, and so the prompt is there sooner.
      this.#sizeSent = this.#size;
      commands.push({ type: "sendText", text: JSON.stringify({ type: "resize", ...this.#size }) });
    }
    return commands;
  }

  #attached(now: number): Command[] {
    this.#phase = "attached";
    this.#deadline = null;
    this.#attempt = 0;
    this.#freshTickets = 0;
    this.#failure = null;
    this.#lastError = null;
    this.#trunkLost = false;
    // An early ping gives the round trip at once instead of after ten seconds.
    this.#nextPingAt = now + 500;
    if (this.mode === "own" && this.#positioned) this.#sizeSent = { cols: 0, rows: 0 };
    return [...this.#sendSize(now), ...this.#flushInput()];
  }

  #message(message: ServerMessage, now: number): Command[] {
    switch (message.type) {
      case "session": {
        this.#sessionId = message.sessionId;
        const commands: Command[] = [];
        if (this.mode !== "own" && message.cols && message.rows)
          commands.push({ type: "adoptSize", cols: message.cols, rows: message.rows });
        // When resuming, the position comes next; until then nothing may be typed or shown.
        if (!this.#awaitingResumed && this.#phase === "connecting") {
          if (this.mode === "own") this.#positioned = true;
          commands.push(...this.#attached(now));
        }
        return commands;
      }
      case "resumed":
        return this.#resumed(message.offset, message.inputOffset, now);
      case "ack":
        this.#input.acknowledge(message.input);
        return this.#flushInput();
      case "pong":
        if (this.#pingSentAt !== null && message.t === this.#pingSentAt)
          this.#rtt = now - this.#pingSentAt;
        this.#pingSentAt = null;
        return [];
      case "ping":
        return [{ type: "sendText", text: JSON.stringify({ type: "pong", t: message.t }) }];
      case "exit":
        this.#exit = { code: message.code, signal: message.signal };
        return [];
      case "error":
        this.#lastError = { code: message.code, message: message.message };
        return [];
      case "state":
        this.#trunkLost = message.trunk === "lost";
        return [];
      case "resize":
        return this.mode === "own"
          ? []
          : [{ type: "adoptSize", cols: message.cols, rows: message.rows }];
      case "attached":
        this.#others.add(message.user);
        return [];
      case "detached":
        this.#others.delete(message.user);
        return [];
    }
  }

  /** Where output continues: after a resume, or in mid-stream when a slow observer was moved on. */
  #resumed(offset: number, inputOffset: number | undefined, now: number): Command[] {
    const commands: Command[] = [];
    if (offset > this.#received) {
      const bytes = offset - this.#received;
      if (this.#positioned || this.mode === "own")
        commands.push({ type: "skipped", bytes, early: !this.#positioned });
      this.#received = offset;
      this.#overlap = 0;
    } else {
      this.#overlap = this.#received - offset;
    }
    this.#positioned = true;
    if (this.mode === "own" && this.#awaitingResumed) {
      if (inputOffset !== undefined) this.#input.rewind(inputOffset);
      else this.#input.forgetSent();
    }
    this.#awaitingResumed = false;
    if (this.#phase === "connecting") commands.push(...this.#attached(now));
    return commands;
  }

  #bytes(data: Uint8Array, now: number): Command[] {
    const commands: Command[] = [];
    // Bytes before `resumed` can only come from a gateway that continues exactly where we asked.
    if (this.#awaitingResumed) commands.push(...this.#resumed(this.#received, undefined, now));
    if (this.#phase !== "attached") return commands;
    this.#positioned = true;
    const repeated = Math.min(this.#overlap, data.length);
    this.#overlap -= repeated;
    const fresh = repeated ? data.subarray(repeated) : data;
    this.#received += fresh.length;
    if (fresh.length) commands.push({ type: "write", data: fresh, generation: this.#generation });
    // Bytes we threw away were sent on our credit all the same.
    if (repeated) commands.push(...this.#written(repeated, this.#generation));
    return commands;
  }

  #written(bytes: number, generation: number): Command[] {
    if (generation !== this.#generation || this.#phase !== "attached") return [];
    this.#consumed += bytes;
    if (this.#consumed < CREDIT_STEP) return [];
    const credit = this.#consumed;
    this.#consumed = 0;
    return [{ type: "sendText", text: JSON.stringify({ type: "credit", bytes: credit }) }];
  }

  #typed(data: Uint8Array): Command[] {
    if (this.mode === "observe" || this.#phase === "ended" || this.#phase === "failed") return [];
    const limit = this.#phase === "attached" ? INPUT_LIMIT : OFFLINE_INPUT_LIMIT;
    if (this.#input.pending + data.length > limit) return [];
    this.#input.push(data);
    return this.#flushInput();
  }

  #flushInput(): Command[] {
    if (this.#phase !== "attached") return [];
    const commands: Command[] = [];
    for (let data = this.#input.next(); data; data = this.#input.next()) {
      commands.push({ type: "sendBytes", data });
      // A second writer's bytes are mixed with the owner's: the agent's count is not ours to use.
      if (this.mode === "join") this.#input.forgetSent();
    }
    return commands;
  }

  #sizeChanged(): boolean {
    return (
      this.mode === "own" &&
      (this.#size.cols !== this.#sizeSent.cols || this.#size.rows !== this.#sizeSent.rows)
    );
  }

  #sendSize(now: number): Command[] {
    if (this.#phase !== "attached" || !this.#sizeChanged()) return [];
    if (now - this.#sizeSentAt < RESIZE_EVERY) return []; // nextDeadline() brings us back
    this.#sizeSent = this.#size;
    this.#sizeSentAt = now;
    return [{ type: "sendText", text: JSON.stringify({ type: "resize", ...this.#size }) }];
  }

  /** Any message proves that the other side is alive, not only a pong. */
  #heard(): void {
    this.#silent = false;
  }

  #tick(now: number): Command[] {
    if (this.#retryAt !== null && now >= this.#retryAt) return this.#authorise(now);
    if (this.#deadline !== null && now >= this.#deadline) return this.#giveUpSocket(now);
    if (this.#phase !== "attached") return [];
    const commands = this.#sendSize(now);
    if (this.#pingSentAt !== null && now >= this.#pingSentAt + PONG_DEADLINE) {
      if (this.#silent) return this.#giveUpSocket(now);
      this.#pingSentAt = null; // busy, not dead: the pong is queued behind output
      this.#nextPingAt = now;
    }
    if (this.#pingSentAt === null && now >= this.#nextPingAt) {
      this.#pingSentAt = now;
      this.#nextPingAt = now + PING_EVERY;
      this.#silent = true;
      commands.push({ type: "sendText", text: JSON.stringify({ type: "ping", t: now }) });
    }
    return commands;
  }

  /** The socket is useless to us; its own `close` may never come, so we do not wait for it. */
  #giveUpSocket(now: number): Command[] {
    return [{ type: "closeSocket" }, ...this.#wait(now, backoff(this.#attempt, this.#random))];
  }

  #retryNow(now: number): Command[] {
    if (this.#phase === "waiting") return this.#authorise(now);
    // The network changed under an open socket: find out now instead of at the next ping.
    if (this.#phase === "attached" && this.#pingSentAt === null) this.#nextPingAt = now;
    if (this.#phase === "failed") {
      this.#failure = null;
      this.#lastError = null;
      this.#attempt = 0;
      this.#freshTickets = 0;
      return this.#authorise(now);
    }
    return [];
  }

  #wait(now: number, delay: number): Command[] {
    this.#phase = "waiting";
    this.#deadline = null;
    this.#pingSentAt = null;
    this.#retryAt = now + delay;
    this.#attempt += 1;
    this.#others.clear();
    return [];
  }

  #refused(event: Extract<EngineEvent, { type: "ticketRefused" }>, now: number): Command[] {
    if (judgeRefusal(event.status, this.#sessionId !== null) === "retry") {
      const delay = backoff(this.#attempt, this.#random);
      return this.#wait(now, Math.max(delay, (event.retryAfter ?? 0) * 1000));
    }
    return this.#fail({ code: event.code, message: event.message, status: event.status });
  }

  #fail(failure: NonNullable<View["failure"]>): Command[] {
    this.#phase = "failed";
    this.#failure = failure;
    this.#deadline = null;
    this.#retryAt = null;
    this.#pingSentAt = null;
    return [];
  }

  #closed(code: number, reason: string, now: number): Command[] {
    if (this.#phase !== "connecting" && this.#phase !== "attached") return [];
    if (this.#exit || code === 1000) {
      this.#phase = "ended";
      this.#deadline = null;
      this.#pingSentAt = null;
      this.#exit ??= { code: null, signal: null };
      if (this.#lastError) this.#failure = { ...this.#lastError, status: code };
      return [];
    }
    const displaced = this.#lastError?.code === "displaced";
    const verdict = displaced ? "final" : judgeClose(code, this.#sessionId !== null);
    if (verdict === "fresh-ticket" && this.#freshTickets === 0) {
      this.#freshTickets += 1;
      return this.#wait(now, 0);
    }
    if (verdict === "retry") return this.#wait(now, backoff(this.#attempt, this.#random));
    return this.#fail({
      code: this.#lastError?.code ?? `closed_${code}`,
      message: this.#lastError?.message || reason,
      status: code,
    });
  }
}
