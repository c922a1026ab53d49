// Carries out the engine's commands with a real WebSocket, timer and HTTP call, and feeds back what
// happened. Everything that decides is in engine.ts; nothing here does.

import { ApiError } from "../api/client";
import type { Command, EngineEvent, Mode, View } from "./conversation";
import { TerminalEngine } from "./engine";

export interface Screen {
  /** Show bytes; call `shown` once they are parsed (xterm's write callback). */
  write(data: Uint8Array, shown: () => void): void;
  skipped(bytes: number, early: boolean): void;
  adoptSize(cols: number, rows: number): void;
}

export interface ConnectionOptions {
  mode: Mode;
  sessionId: string | null;
  cols: number;
  rows: number;
  screen: Screen;
  /** Asks the gateway for a ticket; `null` when the cookie alone is enough (observers). */
  authorise(wanted: {
    cols: number;
    rows: number;
    sessionId: string | null;
  }): Promise<string | null>;
  onView(view: View): void;
}

const socketAddress = (mode: Mode, sessionId: string | null, offset: number): string => {
  // Our own origin, not the gateway's idea of its address: a proxy in front may disagree with it,
  // and the CSP allows nothing else.
  const url = new URL("/api/v1/tty/ws", window.location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (mode !== "own" && sessionId) {
    url.searchParams.set("mode", mode);
    url.searchParams.set("session_id", sessionId);
    if (offset) url.searchParams.set("offset", String(offset));
  }
  return url.href;
};

export class TerminalConnection {
  readonly #options: ConnectionOptions;
  readonly #engine: TerminalEngine;
  #socket: WebSocket | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #disposed = false;
  #started = false;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#engine = new TerminalEngine(options);
    window.addEventListener("online", this.retryNow);
    this.#feed({ type: "start" });
  }

  get view(): View {
    return this.#engine.view;
  }

  type(data: Uint8Array): void {
    this.#feed({ type: "typed", data });
  }

  resize(cols: number, rows: number): void {
    this.#feed({ type: "resized", cols, rows });
  }

  retryNow = (): void => this.#feed({ type: "retryNow" });

  /** The view is going away; the shell on the machine stays, within its grace time. */
  dispose(): void {
    this.#disposed = true;
    window.removeEventListener("online", this.retryNow);
    clearTimeout(this.#timer);
    this.#closeSocket();
  }

  #feed(event: EngineEvent): void {
    if (this.#disposed) return;
    for (const command of this.#engine.handle(event, performance.now())) this.#carryOut(command);
    this.#schedule();
    // Every chunk of output would be a React render otherwise; only the first one is news.
    const output = event.type === "bytesReceived" || event.type === "written";
    if (output && this.#started) return;
    const { view } = this;
    this.#started = view.started;
    this.#options.onView(view);
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const due = this.#engine.nextDeadline();
    if (due === null) return;
    const delay = Math.max(0, due - performance.now());
    this.#timer = setTimeout(() => this.#feed({ type: "tick" }), delay);
  }

  #carryOut(command: Command): void {
    const { screen } = this.#options;
    switch (command.type) {
      case "authorise":
        void this.#authorise(command.cols, command.rows);
        return;
      case "connect":
        this.#open();
        return;
      case "sendText":
        this.#send(command.text);
        return;
      case "sendBytes":
        this.#send(command.data);
        return;
      case "closeSocket":
        this.#closeSocket();
        return;
      case "write": {
        const { data, generation } = command;
        screen.write(data, () => this.#feed({ type: "written", bytes: data.length, generation }));
        return;
      }
      case "skipped":
        screen.skipped(command.bytes, command.early);
        return;
      case "adoptSize":
        screen.adoptSize(command.cols, command.rows);
    }
  }

  async #authorise(cols: number, rows: number): Promise<void> {
    try {
      const token = await this.#options.authorise({
        cols,
        rows,
        sessionId: this.view.sessionId,
      });
      this.#feed({ type: "ticketGranted", token });
    } catch (error) {
      const known = error instanceof ApiError ? error : null;
      this.#feed({
        type: "ticketRefused",
        status: known?.status ?? 0,
        code: known?.code ?? "network",
        message: known?.explanation ?? "",
        retryAfter: known?.retryAfter,
      });
    }
  }

  #open(): void {
    this.#closeSocket();
    const socket = new WebSocket(
      socketAddress(this.#options.mode, this.view.sessionId, this.#engine.received),
    );
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    // A socket we have given up may still speak; only the present one is listened to.
    const present = (event: EngineEvent) => {
      if (this.#socket === socket) this.#feed(event);
    };
    socket.onopen = () => present({ type: "socketOpened" });
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) =>
      present(
        typeof data === "string"
          ? { type: "textReceived", text: data }
          : { type: "bytesReceived", data: new Uint8Array(data) },
      );
    socket.onclose = ({ code, reason }) => {
      present({ type: "socketClosed", code, reason });
      if (this.#socket === socket) this.#socket = null;
    };
  }

  #send(data: string | Uint8Array): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(data as string | Uint8Array<ArrayBuffer>);
  }

  #closeSocket(): void {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }
}
