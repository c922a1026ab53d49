// One xterm.js terminal with its addons: drawing, fitting, searching, and the guards around what a
// shell may do to the page. Knows nothing of the network; `onInput` and `onSize` lead outside.

import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { WebglAddon } from "@xterm/addon-webgl";
import { type ITheme, Terminal } from "@xterm/xterm";
import { copyText } from "../app/clipboard";
import { bufferText, type TerminalElement } from "./buffer-text";
import {
  cleanPaste,
  cleanTitle,
  clipboardText,
  isTerminalReport,
  pasteLines,
  safeLink,
} from "./hostile";
import type { TerminalPreferences } from "./preferences";

export interface ScreenEvents {
  onInput(data: Uint8Array): void;
  onSize(cols: number, rows: number): void;
  onTitle(title: string): void;
  /** Asks the person about a paste of several lines. */
  confirmPaste(text: string, lines: number): Promise<boolean>;
  /** A key combination of ours; true when it was one. */
  onShortcut(event: KeyboardEvent): boolean;
  onFocus(): void;
}

const encoder = new TextEncoder();

const openLink = (link: string): void => {
  const address = safeLink(link);
  if (address) window.open(address, "_blank", "noopener,noreferrer");
};

export class TerminalScreen {
  readonly term: Terminal;
  readonly search = new SearchAddon();
  readonly #fit = new FitAddon();
  readonly #events: ScreenEvents;
  readonly #host: TerminalElement;
  readonly #observer: ResizeObserver;
  #webgl: WebglAddon | null = null;
  #webglBroken = false;
  #frame = 0;
  #follows: boolean;
  /** Set while old output is replayed: answers to its questions are not typed (hostile.ts). */
  #quiet = false;
  #quietSince = 0;
  #quietTimer: ReturnType<typeof setTimeout> | undefined;
  #remoteClipboard = true;
  #confirmPaste = true;

  /** `follows`: the size is the owner's (observing), not this element's. */
  constructor(
    host: TerminalElement,
    events: ScreenEvents,
    look: { theme: ITheme; preferences: TerminalPreferences; follows: boolean; label: string },
  ) {
    this.#events = events;
    this.#host = host;
    this.#follows = look.follows;
    this.term = new Terminal({
      allowProposedApi: true, // unicode11 and the search decorations live there
      scrollback: 10_000,
      fontFamily:
        'ui-monospace, "JetBrains Mono", "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace',
      lineHeight: 1.15,
      macOptionIsMeta: true,
      rightClickSelectsWord: false,
      disableStdin: false,
      // OSC 8 hyperlinks take the same way as addresses in plain text.
      linkHandler: { activate: (_, link) => openLink(link), allowNonHttpProtocols: false },
    });
    this.apply(look.theme, look.preferences);
    this.term.loadAddon(this.#fit);
    this.term.loadAddon(this.search);
    this.term.loadAddon(new WebLinksAddon((_, link) => openLink(link)));
    this.term.loadAddon(new Unicode11Addon());
    this.term.unicode.activeVersion = "11";
    this.term.open(host);
    this.term.textarea?.setAttribute("aria-label", look.label);
    if (!this.#follows) this.#fit.fit();

    this.term.onData((data) => {
      if (this.#quiet && isTerminalReport(data)) return;
      events.onInput(encoder.encode(data));
    });
    // Legacy mouse reports are 8-bit, not UTF-8.
    this.term.onBinary((data) =>
      events.onInput(Uint8Array.from(data, (char) => char.charCodeAt(0))),
    );
    this.term.onTitleChange((title) => events.onTitle(cleanTitle(title)));
    this.term.parser.registerOscHandler(52, (payload) => {
      const text = this.#remoteClipboard ? clipboardText(payload) : null;
      if (text !== null) void copyText(text);
      return true;
    });
    this.term.attachCustomKeyEventHandler(
      (event) => !(event.type === "keydown" && events.onShortcut(event)),
    );
    host.addEventListener("paste", this.#onPaste, true);
    host.addEventListener("focusin", events.onFocus);
    host.readText = () => bufferText(this.term);
    this.#observer = new ResizeObserver(() => this.#refit());
    this.#observer.observe(host);
  }

  get size(): { cols: number; rows: number } {
    return { cols: this.term.cols, rows: this.term.rows };
  }

  write(data: Uint8Array, shown: () => void): void {
    this.term.write(data, shown);
    if (this.#quiet) this.#endQuietSoon();
  }

  /** A line of ours between the shell's; CAN first, in case an escape sequence was cut in two. */
  note(text: string): void {
    this.term.write(`\x18\x1b[0m\r\n\x1b[2m── ${text} ──\x1b[0m\r\n`);
  }

  adoptSize(cols: number, rows: number): void {
    this.#follows = true;
    this.term.resize(cols, rows);
  }

  beQuiet(): void {
    this.#quiet = true;
    this.#quietSince = performance.now();
    this.#endQuietSoon();
  }

  apply(theme: ITheme, preferences: TerminalPreferences): void {
    const { options } = this.term;
    options.theme = theme;
    // The frame around the cells has the same ground, or it would look like a border.
    this.#host.parentElement?.style.setProperty("--screen", theme.background ?? null);
    options.fontSize = preferences.fontSize;
    options.cursorBlink = preferences.cursorBlink;
    options.screenReaderMode = preferences.screenReader;
    options.minimumContrastRatio = preferences.theme === "contrast" ? 7 : 1;
    this.#remoteClipboard = preferences.remoteClipboard;
    this.#confirmPaste = preferences.confirmPaste;
    this.#refit();
  }

  /** Browsers allow few WebGL contexts, so only terminals in sight hold one. */
  setVisible(visible: boolean): void {
    if (!visible) {
      this.#webgl?.dispose();
      this.#webgl = null;
      return;
    }
    this.#refit();
    if (this.#webgl || this.#webglBroken) return;
    try {
      const addon = new WebglAddon();
      // Without this a lost context looks like a hung shell. The DOM renderer takes over.
      addon.onContextLoss(() => {
        addon.dispose();
        this.#webgl = null;
        this.#webglBroken = true;
      });
      this.term.loadAddon(addon);
      this.#webgl = addon;
    } catch {
      this.#webglBroken = true; // no WebGL2 here; the DOM renderer is slower and right
    }
  }

  async paste(raw: string): Promise<void> {
    const text = cleanPaste(raw);
    if (!text) return;
    const lines = pasteLines(text);
    if (lines > 1 && this.#confirmPaste && !(await this.#events.confirmPaste(text, lines))) return;
    this.term.paste(text);
    this.term.focus();
  }

  dispose(): void {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#quietTimer);
    this.#observer.disconnect();
    this.#host.removeEventListener("paste", this.#onPaste, true);
    this.#host.removeEventListener("focusin", this.#events.onFocus);
    delete this.#host.readText;
    this.term.dispose();
  }

  #onPaste = (event: ClipboardEvent): void => {
    event.preventDefault();
    event.stopPropagation();
    void this.paste(event.clipboardData?.getData("text/plain") ?? "");
  };

  #endQuietSoon(): void {
    clearTimeout(this.#quietTimer);
    // A shell that never stops talking must get its answers again some time.
    const left = this.#quietSince + 5_000 - performance.now();
    this.#quietTimer = setTimeout(
      () => {
        this.#quiet = false;
      },
      Math.min(800, Math.max(0, left)),
    );
  }

  /** At most once a frame; the screen and the machine's pty change in the same tick. */
  #refit(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => {
      if (this.#follows || !this.#host.clientWidth || !this.#host.clientHeight) return;
      const wanted = this.#fit.proposeDimensions();
      if (!wanted || !Number.isFinite(wanted.cols) || !Number.isFinite(wanted.rows)) return;
      if (wanted.cols === this.term.cols && wanted.rows === this.term.rows) return;
      this.term.resize(wanted.cols, wanted.rows);
      this.#events.onSize(wanted.cols, wanted.rows);
    });
  }
}
