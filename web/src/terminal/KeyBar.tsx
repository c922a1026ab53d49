// The keys a phone's keyboard does not have. Shown for touch screens only (see terminal.css); the
// buttons never take the focus, which would close that keyboard.

import type { Terminal } from "@xterm/xterm";
import type { PointerEvent } from "react";
import { useT } from "../i18n";

interface KeyBarProps {
  term: Terminal;
  control: boolean;
  onControl(held: boolean): void;
  onType(text: string): void;
  onPaste(text: string): void;
}

const ARROWS = [
  ["←", "D", "keybar.left"],
  ["↓", "B", "keybar.down"],
  ["↑", "A", "keybar.up"],
  ["→", "C", "keybar.right"],
] as const;

export function KeyBar({ term, control, onControl, onType, onPaste }: KeyBarProps) {
  const t = useT();
  const keep = (event: PointerEvent) => event.preventDefault();
  const arrow = (letter: string) =>
    onType(`${term.modes.applicationCursorKeysMode ? "\x1bO" : "\x1b["}${letter}`);
  return (
    <div className="key-bar" role="toolbar" aria-label={t("keybar.label")} onPointerDown={keep}>
      <button type="button" onClick={() => onType("\x1b")}>
        Esc
      </button>
      <button type="button" onClick={() => onType("\t")}>
        Tab
      </button>
      <button type="button" aria-pressed={control} onClick={() => onControl(!control)}>
        Ctrl
      </button>
      {ARROWS.map(([sign, letter, label]) => (
        <button key={letter} type="button" aria-label={t(label)} onClick={() => arrow(letter)}>
          {sign}
        </button>
      ))}
      {["|", "/", "-", "~"].map((char) => (
        <button key={char} type="button" onClick={() => onType(char)}>
          {char}
        </button>
      ))}
      {navigator.clipboard?.readText && (
        <button
          type="button"
          onClick={() => void navigator.clipboard.readText().then(onPaste, () => undefined)}
        >
          {t("keybar.paste")}
        </button>
      )}
    </div>
  );
}
