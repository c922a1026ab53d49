// How this person likes their terminal; kept in this browser.

import { setting, useSetting } from "../app/setting";

export interface TerminalPreferences {
  fontSize: number;
  theme: string;
  confirmPaste: boolean;
  /** Programs in the shell may put text into the clipboard (OSC 52); they can never read it. */
  remoteClipboard: boolean;
  screenReader: boolean;
  cursorBlink: boolean;
}

export const FONT_MIN = 8;
export const FONT_MAX = 28;

const INITIAL: TerminalPreferences = {
  fontSize: 14,
  theme: "auto",
  confirmPaste: true,
  remoteClipboard: true,
  screenReader: false,
  cursorBlink: true,
};

const valid = (value: unknown): value is TerminalPreferences => {
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(INITIAL).every(
    ([key, initial]) => typeof (value as Record<string, unknown>)[key] === typeof initial,
  );
};

export const preferences = setting("terminal", INITIAL, valid);

export function usePreferences() {
  const [value, set] = useSetting(preferences);
  return {
    ...value,
    change: (change: Partial<TerminalPreferences>) => set({ ...preferences.get(), ...change }),
  };
}

export const zoom = (by: number): void => {
  const current = preferences.get();
  const fontSize = Math.min(FONT_MAX, Math.max(FONT_MIN, current.fontSize + by));
  preferences.set({ ...current, fontSize });
};
