// The bytes a person typed, by absolute offset, until the agent has acknowledged them. What was sent
// and not acknowledged when a socket broke is sent again from the offset the agent reports, so that
// no keystroke is lost or typed twice.

import { INPUT_CHUNK, INPUT_WINDOW } from "./protocol";

export class InputLog {
  /** Chunks still needed; the first starts at absolute offset `base`. */
  #chunks: Uint8Array[] = [];
  /** Everything below was taken by the agent. */
  base = 0;
  /** Everything below has been handed to the present socket. */
  sent = 0;
  /** Everything below was typed. */
  end = 0;

  /** Bytes typed and not yet acknowledged. */
  get pending(): number {
    return this.end - this.base;
  }

  push(data: Uint8Array): void {
    this.#chunks.push(data);
    this.end += data.length;
  }

  /** The agent has taken everything below `offset`. Nonsense (older, or beyond what we sent) is ignored. */
  acknowledge(offset: number): void {
    if (offset <= this.base || offset > this.sent) return;
    this.#dropTo(offset);
  }

  /**
   * A new socket is in place and the agent has `offset` bytes. A log that has never been used (a page
   * that came back to a session it did not start) adopts the number as its own.
   */
  rewind(offset: number): void {
    if (offset < this.base || offset > this.end) {
      // The agent's count is not about these bytes (page reloaded, or another tab typed meanwhile):
      // keep what was never sent, forget the rest, and count on from the agent's number.
      const unsent = this.#take(this.sent, this.end);
      this.#chunks = unsent.length ? [unsent] : [];
      this.base = offset;
      this.end = offset + unsent.length;
    } else {
      this.#dropTo(offset);
    }
    this.sent = this.base;
  }

  /** No acknowledgement will come (second writer, old gateway): what was sent counts as taken. */
  forgetSent(): void {
    this.#dropTo(this.sent);
  }

  /** The next message to send, within the window; `null` when there is nothing or no room. */
  next(window: number = INPUT_WINDOW): Uint8Array | null {
    const room = Math.min(this.base + window, this.end) - this.sent;
    if (room <= 0) return null;
    const data = this.#take(this.sent, this.sent + Math.min(room, INPUT_CHUNK));
    this.sent += data.length;
    return data;
  }

  #dropTo(offset: number): void {
    while (this.base < offset) {
      const head = this.#chunks[0];
      if (!head) break;
      const surplus = offset - this.base;
      if (head.length <= surplus) {
        this.#chunks.shift();
        this.base += head.length;
      } else {
        this.#chunks[0] = head.subarray(surplus);
        this.base = offset;
      }
    }
  }

  #take(from: number, to: number): Uint8Array {
    const out = new Uint8Array(to - from);
    let position = this.base;
    for (const chunk of this.#chunks) {
      const start = Math.max(from, position);
      const stop = Math.min(to, position + chunk.length);
      if (start < stop) out.set(chunk.subarray(start - position, stop - position), start - from);
      position += chunk.length;
      if (position >= to) break;
    }
    return out;
  }
}
