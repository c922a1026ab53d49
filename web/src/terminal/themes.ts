// Colour schemes of the terminal. "auto" follows the console's light or dark.

import type { ITheme } from "@xterm/xterm";

const palette = (colours: string): Partial<ITheme> => {
  const c = colours.split(" ").map((hex) => `#${hex}`);
  return {
    black: c[0],
    red: c[1],
    green: c[2],
    yellow: c[3],
    blue: c[4],
    magenta: c[5],
    cyan: c[6],
    white: c[7],
    brightBlack: c[8],
    brightRed: c[9],
    brightGreen: c[10],
    brightYellow: c[11],
    brightBlue: c[12],
    brightMagenta: c[13],
    brightCyan: c[14],
    brightWhite: c[15],
  };
};

const make = (
  background: string,
  foreground: string,
  selection: string,
  colours: string,
): ITheme => ({
  background,
  foreground,
  cursor: foreground,
  cursorAccent: background,
  selectionBackground: selection,
  ...palette(colours),
});

export const THEMES: Record<string, { label: string; theme: ITheme }> = {
  night: {
    label: "Night",
    theme: make(
      "#0f1216",
      "#d5dae1",
      "#2f5d52",
      "20252c e5697a 5fc08b e0b25c 6aa5e8 bd8ae0 4fc1c9 c3c9d2 5f6876 f28b98 83d8a8 f0cb84 8fbdf2 d3abee 7adbe1 eef1f5",
    ),
  },
  day: {
    label: "Day",
    theme: make(
      "#ffffff",
      "#22272e",
      "#bfe6da",
      "22272e b62a3c 1d7a4a 8a6100 1f5fae 7d3fae 0d7377 6b7280 4b5563 cf3a4c 23905a a37400 2f74c8 9553c4 168a8f 3b4250",
    ),
  },
  solarized: {
    label: "Solarized dark",
    theme: make(
      "#002b36",
      "#93a1a1",
      "#174652",
      "073642 dc322f 859900 b58900 268bd2 d33682 2aa198 eee8d5 586e75 cb4b16 93a82a c99a1c 51a3dd 6c71c4 4fb8b0 fdf6e3",
    ),
  },
  gruvbox: {
    label: "Gruvbox dark",
    theme: make(
      "#282828",
      "#ebdbb2",
      "#504945",
      "282828 cc241d 98971a d79921 458588 b16286 689d6a a89984 928374 fb4934 b8bb26 fabd2f 83a598 d3869b 8ec07c ebdbb2",
    ),
  },
  contrast: {
    label: "High contrast",
    theme: make(
      "#000000",
      "#ffffff",
      "#4a4a00",
      "000000 ff6060 60ff60 ffff60 80a0ff ff80ff 60ffff ffffff 909090 ff9090 90ff90 ffff90 a0c0ff ffa0ff 90ffff ffffff",
    ),
  },
};

export const themeNamed = (name: string, scheme: "light" | "dark"): ITheme => {
  const wanted = name === "auto" ? (scheme === "dark" ? "night" : "day") : name;
  return (THEMES[wanted] ?? THEMES.night)?.theme ?? {};
};

/** Whether `#rrggbb` is a dark ground: the weights are how bright each primary looks. */
export function isDark(background: string | undefined): boolean {
  const value = Number.parseInt((background ?? "#000000").slice(1, 7), 16);
  const [r, g, b] = [value >> 16, (value >> 8) & 255, value & 255];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
}
