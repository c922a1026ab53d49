import { describe, expect, it } from "vitest";
import type { Command, EngineEvent, Mode } from "./conversation";
import { PING_EVERY, PONG_DEADLINE, TerminalEngine } from "./engine";
import {
  backoff,
  CREDIT_STEP,
  INPUT_WINDOW,
  judgeClose,
  judgeRefusal,
  OFFLINE_INPUT_LIMIT,
} from "./protocol";

const bytes = (text: string) => new TextEncoder().encode(text);

/** Reads like a script: `play.on(event)` gives the commands; `play.at(ms)` moves the clock. */
class Play {
  now = 1_000;
  readonly engine: TerminalEngine;
  constructor(mode: Mode = "own", sessionId: string | null = null) {
    this.engine = new TerminalEngine({ mode, sessionId, cols: 80, rows: 24, random: () => 0.5 });
  }
  on(event: EngineEvent): Command[] {
    return this.engine.handle(event, this.now);
  }
  text(message: object): Command[] {
    return this.on({ type: "textReceived", text: JSON.stringify(message) });
  }
  output(text: string): Command[] {
    return this.on({ type: "bytesReceived", data: bytes(text) });
  }
  type(text: string): Command[] {
    return this.on({ type: "typed", data: bytes(text) });
  }
  close(code: number): Command[] {
    return this.on({ type: "socketClosed", code, reason: "" });
  }
  /** Moves to the engine's next deadline and ticks. */
  next(): Command[] {
    const due = this.engine.nextDeadline();
    if (due === null) throw new Error("nothing is due");
    this.now = Math.max(this.now, due);
    return this.on({ type: "tick" });
  }
  open(): Command[] {
    if (this.view.phase === "waiting") this.next();
    else this.on({ type: "start" });
    this.on({ type: "ticketGranted", token: "t" });
    return this.on({ type: "socketOpened" });
  }
  attach(): this {
    this.open();
    this.text({ session_id: "s1" });
    return this;
  }
  reattach(offset: number, inputOffset?: number): Command[] {
    this.open();
    this.text({ session_id: "s1" });
    return this.text({ type: "resumed", offset, input_offset: inputOffset });
  }
  get view() {
    return this.engine.view;
  }
}

const texts = (commands: Command[]) =>
  commands.flatMap((c) =>
    c.type === "sendText" ? [JSON.parse(c.text) as Record<string, unknown>] : [],
  );
const sent = (commands: Command[]) =>
  commands
    .flatMap((c) => (c.type === "sendBytes" ? [new TextDecoder().decode(c.data)] : []))
    .join("");
const shown = (commands: Command[]) =>
  commands.flatMap((c) => (c.type === "write" ? [new TextDecoder().decode(c.data)] : [])).join("");

describe("opening", () => {
  it("authorises with the size, connects, and sends the ticket in the first message only", () => {
    const play = new Play();
    expect(play.on({ type: "start" })).toEqual([{ type: "authorise", cols: 80, rows: 24 }]);
    expect(play.on({ type: "ticketGranted", token: "secret" })).toEqual([{ type: "connect" }]);
    expect(texts(play.on({ type: "socketOpened" }))).toEqual([
      { type: "auth", token: "secret" },
      { type: "resize", cols: 80, rows: 24 }, // says that no resume will come
    ]);
    expect(play.view.phase).toBe("connecting");
    play.text({ session_id: "s1" });
    expect(play.view).toMatchObject({ phase: "attached", sessionId: "s1" });
  });

  it("sends no auth message when the cookie is enough", () => {
    const play = new Play("observe", "s1");
    play.on({ type: "start" });
    play.on({ type: "ticketGranted", token: null });
    expect(play.on({ type: "socketOpened" })).toEqual([]);
  });

  it.each([401, 403, 404, 409, 429])("a first opening refused with %i is final", (status) => {
    const play = new Play();
    play.on({ type: "start" });
    play.on({ type: "ticketRefused", status, code: "x", message: "why" });
    expect(play.view).toMatchObject({ phase: "failed", failure: { message: "why", status } });
    expect(play.engine.nextDeadline()).toBeNull();
  });

  it("tries again when the gateway cannot be reached, and at once when asked to", () => {
    const play = new Play();
    play.on({ type: "start" });
    play.on({ type: "ticketRefused", status: 0, code: "network", message: "" });
    expect(play.view.phase).toBe("waiting");
    expect(play.on({ type: "retryNow" })).toMatchObject([{ type: "authorise" }]);
  });

  it("gives up on a socket that never opens", () => {
    const play = new Play();
    play.on({ type: "start" });
    play.on({ type: "ticketGranted", token: "t" });
    expect(play.next()).toEqual([{ type: "closeSocket" }]);
    expect(play.view.phase).toBe("waiting");
  });

  it("takes the size that changed while connecting", () => {
    const play = new Play();
    play.open();
    play.on({ type: "resized", cols: 100, rows: 30 });
    expect(texts(play.text({ session_id: "s1" }))).toContainEqual({
      type: "resize",
      cols: 100,
      rows: 30,
    });
  });
});

describe("output", () => {
  it("counts offsets and resumes exactly where it stopped", () => {
    const play = new Play().attach();
    expect(shown(play.output("hello "))).toBe("hello ");
    play.close(1006);
    const resume = texts(play.open());
    expect(resume).toEqual([
      { type: "auth", token: "t" },
      { type: "resume", session_id: "s1", offset: 6 },
    ]);
    play.text({ session_id: "s1" });
    expect(play.view.phase).toBe("connecting"); // not attached before the position is known
    play.text({ type: "resumed", offset: 6, input_offset: 0 });
    expect(shown(play.output("world"))).toBe("world");
    expect(play.engine.received).toBe(11);
  });

  it("says so when output was skipped", () => {
    const play = new Play().attach();
    play.output("12345");
    play.close(1006);
    expect(play.reattach(25, 0)).toContainEqual({ type: "skipped", bytes: 20, early: false });
    expect(play.engine.received).toBe(25);
  });

  it("drops what it already has when the server continues earlier", () => {
    const play = new Play().attach();
    play.output("abcdef");
    play.close(1006);
    play.reattach(2, 0);
    expect(shown(play.output("cd"))).toBe("");
    expect(shown(play.output("efgh"))).toBe("gh");
    expect(play.engine.received).toBe(8);
  });

  it("a page that returns to a session takes the ring from its start, softly marked", () => {
    const play = new Play("own", "s1");
    expect(texts(play.open())).toContainEqual({ type: "resume", session_id: "s1", offset: 0 });
    play.text({ session_id: "s1" });
    expect(play.text({ type: "resumed", offset: 5_000, input_offset: 12 })).toContainEqual({
      type: "skipped",
      bytes: 5_000,
      early: true,
    });
    play.type("x");
    play.close(1006);
    expect(sent(play.reattach(5_000, 12))).toBe("x");
  });

  it("a slow observer that was moved on shows the gap and follows the owner's size", () => {
    const play = new Play("observe", "s1");
    play.open();
    expect(play.text({ session_id: "s1", cols: 120, rows: 40 })).toContainEqual({
      type: "adoptSize",
      cols: 120,
      rows: 40,
    });
    play.text({ type: "resumed", offset: 0 });
    play.output("abc");
    expect(play.text({ type: "resumed", offset: 10 })).toContainEqual({
      type: "skipped",
      bytes: 7,
      early: false,
    });
    expect(play.text({ type: "resize", cols: 90, rows: 20 })).toEqual([
      { type: "adoptSize", cols: 90, rows: 20 },
    ]);
    expect(play.type("typed by an observer")).toEqual([]);
  });
});

describe("credit", () => {
  it("is given back in steps, from what was shown", () => {
    const play = new Play().attach();
    const [write] = play.output("x".repeat(10));
    const generation = write?.type === "write" ? write.generation : -1;
    expect(play.on({ type: "written", bytes: CREDIT_STEP - 1, generation })).toEqual([]);
    expect(texts(play.on({ type: "written", bytes: 2, generation }))).toEqual([
      { type: "credit", bytes: CREDIT_STEP + 1 },
    ]);
  });

  it("never counts bytes of an older socket", () => {
    const play = new Play().attach();
    const [write] = play.output("x");
    const old = write?.type === "write" ? write.generation : -1;
    play.close(1006);
    play.reattach(1, 0);
    expect(play.on({ type: "written", bytes: 10 * CREDIT_STEP, generation: old })).toEqual([]);
  });
});

describe("input", () => {
  it("sends what was not acknowledged again, from the agent's offset", () => {
    const play = new Play().attach();
    expect(sent(play.type("abcdef"))).toBe("abcdef");
    play.text({ type: "ack", input: 2 });
    expect(play.view.pendingInput).toBe(4);
    play.close(1006);
    play.type("gh"); // typed while away
    expect(sent(play.reattach(0, 4))).toBe("efgh");
  });

  it("never types twice when the gateway does not say what arrived", () => {
    const play = new Play().attach();
    play.type("abc");
    play.close(1006);
    play.type("d");
    expect(sent(play.reattach(0))).toBe("d");
  });

  it("keeps a window, and goes on as acknowledgements come", () => {
    const play = new Play().attach();
    const paste = "p".repeat(INPUT_WINDOW + 500);
    expect(sent(play.type(paste)).length).toBe(INPUT_WINDOW);
    expect(sent(play.text({ type: "ack", input: 400 })).length).toBe(400);
    expect(sent(play.text({ type: "ack", input: INPUT_WINDOW })).length).toBe(100);
  });

  it("keeps only a little of what is typed blind", () => {
    const play = new Play().attach();
    play.close(1006);
    play.type("x".repeat(OFFLINE_INPUT_LIMIT));
    play.type("one too many");
    expect(play.view.pendingInput).toBe(OFFLINE_INPUT_LIMIT);
  });

  it("ignores acknowledgements that make no sense", () => {
    const play = new Play().attach();
    play.type("abc");
    for (const input of [-1, 99, 1.5, "2"]) play.text({ type: "ack", input });
    expect(play.view.pendingInput).toBe(3);
  });

  it("a second writer's input is at most once", () => {
    const play = new Play("join", "s1");
    play.open();
    play.text({ session_id: "s1" });
    expect(sent(play.type("abc"))).toBe("abc");
    expect(play.view.pendingInput).toBe(0);
  });
});

describe("resize", () => {
  it("turns two hundred into a few, the last one right, and skips the unchanged", () => {
    const play = new Play().attach();
    const sizes: unknown[] = [];
    for (let cols = 81; cols <= 280; cols++) {
      play.now += 2;
      sizes.push(...texts(play.on({ type: "resized", cols, rows: 24 })));
    }
    sizes.push(...texts(play.next()), ...texts(play.next()));
    sizes.splice(
      0,
      sizes.length,
      ...sizes.filter((one) => (one as { type: string }).type === "resize"),
    );
    expect(sizes.length).toBeLessThan(10);
    expect(sizes.at(-1)).toEqual({ type: "resize", cols: 280, rows: 24 });
    expect(play.on({ type: "resized", cols: 280, rows: 24 })).toEqual([]);
  });

  it("announces its size after a resume, since another window may have changed it", () => {
    const play = new Play().attach();
    play.close(1006);
    play.now += 1_000;
    expect(texts(play.reattach(0, 0))).toContainEqual({ type: "resize", cols: 80, rows: 24 });
  });
});

describe("liveness", () => {
  it("measures the round trip", () => {
    const play = new Play().attach();
    const [ping] = texts(play.next());
    expect(ping?.type).toBe("ping");
    play.now += 23;
    play.text({ type: "pong", t: ping?.t });
    expect(play.view.rtt).toBe(23);
  });

  it("notices a half-open socket within the ping interval and the deadline", () => {
    const play = new Play().attach();
    play.next();
    const pinged = play.now;
    expect(play.next()).toEqual([{ type: "closeSocket" }]);
    expect(play.now - pinged).toBe(PONG_DEADLINE);
    expect(play.view.phase).toBe("waiting");
    expect(PING_EVERY + PONG_DEADLINE).toBeLessThanOrEqual(40_000);
  });

  it("does not mistake a flood for death", () => {
    const play = new Play().attach();
    play.next();
    play.now += PONG_DEADLINE - 1;
    play.output("still talking");
    play.next();
    expect(play.view.phase).toBe("attached");
  });

  it("answers the server's own ping", () => {
    const play = new Play().attach();
    expect(texts(play.text({ type: "ping", t: 7 }))).toEqual([{ type: "pong", t: 7 }]);
  });

  it("backs off, doubling to a cap, with jitter, and starts over after success", () => {
    expect([0, 1, 2, 3, 20].map((n) => backoff(n, () => 0.5))).toEqual([
      250, 500, 1000, 2000, 15_000,
    ]);
    expect(backoff(0, () => 0)).toBeLessThan(backoff(0, () => 1));
    const play = new Play().attach();
    play.close(1006);
    play.next();
    play.on({ type: "ticketRefused", status: 503, code: "unavailable", message: "" });
    expect(play.view.attempt).toBe(2);
    play.reattach(0, 0);
    expect(play.view.attempt).toBe(0);
  });

  it("waits as long as it is told to", () => {
    const play = new Play().attach();
    play.close(1006);
    play.next();
    play.on({
      type: "ticketRefused",
      status: 429,
      code: "too_many_requests",
      message: "",
      retryAfter: 30,
    });
    expect((play.view.retryAt ?? 0) - play.now).toBe(30_000);
  });
});

describe("the end", () => {
  it("shows the exit code", () => {
    const play = new Play().attach();
    play.text({ type: "exit", code: 3, signal: null });
    play.close(1000);
    expect(play.view).toMatchObject({ phase: "ended", exit: { code: 3, signal: null } });
    expect(play.engine.nextDeadline()).toBeNull();
  });

  it("tells who ended it", () => {
    const play = new Play().attach();
    play.text({ type: "error", code: "terminated", message: "Ended by the admin." });
    play.close(1000);
    expect(play.view).toMatchObject({
      phase: "ended",
      failure: { message: "Ended by the admin." },
    });
  });

  it.each([
    [1000, "final"],
    [1001, "retry"],
    [1006, "retry"],
    [1011, "retry"],
    [1012, "retry"],
    [4400, "final"],
    [4401, "fresh-ticket"],
    [4403, "final"],
    [4404, "final"],
    [4409, "retry"],
    [4429, "retry"],
    [4500, "retry"],
    [4502, "final"],
  ] as const)("close code %i of a live session is %s", (code, verdict) => {
    expect(judgeClose(code, true)).toBe(verdict);
  });

  it("a first opening does not insist against 4409 and 4429", () => {
    expect([judgeClose(4409, false), judgeClose(4429, false)]).toEqual(["final", "final"]);
    expect([judgeRefusal(409, true), judgeRefusal(429, true), judgeRefusal(401, true)]).toEqual([
      "retry",
      "retry",
      "final",
    ]);
  });

  it("does not fight with the window that took the session over", () => {
    const play = new Play().attach();
    play.text({ type: "error", code: "displaced", message: "Taken over." });
    play.close(4409);
    expect(play.view).toMatchObject({ phase: "failed", failure: { code: "displaced" } });
    expect(play.on({ type: "retryNow" })).toMatchObject([{ type: "authorise" }]);
  });

  it("fetches one fresh ticket after 4401, then believes it", () => {
    const play = new Play().attach();
    play.close(4401);
    expect(play.view.phase).toBe("waiting");
    play.open();
    play.close(4401);
    expect(play.view.phase).toBe("failed");
  });

  it("goes on for ever through restarts", () => {
    const play = new Play().attach();
    for (let i = 0; i < 50; i++) {
      play.close(1006);
      play.reattach(0, 0);
    }
    expect(play.view.phase).toBe("attached");
  });
});

it("absurd messages change nothing", () => {
  const play = new Play().attach();
  const before = JSON.stringify(play.view);
  for (const text of [
    "",
    "{",
    "null",
    "7",
    "[]",
    '{"type":"nope"}',
    '{"type":"resumed","offset":-1}',
    '{"type":"resumed","offset":"x"}',
    '{"session_id":5}',
    '{"type":"state","trunk":9}',
    '{"type":"resize","cols":1e9,"rows":1}',
  ])
    expect(play.on({ type: "textReceived", text })).toEqual([]);
  expect(JSON.stringify(play.view)).toBe(before);
});
