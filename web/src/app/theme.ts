// How the console looks: one accent colour, a quiet grey scale, small dense controls.

import {
  type CSSVariablesResolver,
  createTheme,
  type MantineColorSchemeManager,
  type MantineColorsTuple,
} from "@mantine/core";

const jade: MantineColorsTuple = [
  "#e8f8f3",
  "#d3efe6",
  "#a6dfcd",
  "#75ceb2",
  "#4ebf9b",
  "#35b68d",
  "#22a37b",
  "#12806a",
  "#0c6b58",
  "#035746",
];

/** Its filled shade carries white text; the library's own does not in WCAG's eyes. */
const red: MantineColorsTuple = [
  "#fff5f5",
  "#ffe3e3",
  "#ffc9c9",
  "#ffa8a8",
  "#ff8787",
  "#ff6b6b",
  "#f04848",
  "#d02c2c",
  "#c42727",
  "#b02020",
];

/** Slightly blue greys: calmer than neutral ones beside a terminal. */
const dark: MantineColorsTuple = [
  "#d3d8df",
  "#b0b7c3",
  "#8b94a3",
  "#5f6876",
  "#3b424d",
  "#2c323b",
  "#20252c",
  "#181c22",
  "#12161b",
  "#0c0f13",
];

export const theme = createTheme({
  primaryColor: "jade",
  primaryShade: 7, // the lightest that white text is readable on, in both schemes
  colors: { jade, red, dark },
  autoContrast: true,
  luminanceThreshold: 0.35,
  defaultRadius: "md",
  cursorType: "pointer",
  fontFamily:
    'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif',
  fontFamilyMonospace:
    'ui-monospace, "JetBrains Mono", "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
  headings: {
    fontWeight: "620",
    sizes: {
      h1: { fontSize: "1.35rem" },
      h2: { fontSize: "1.05rem" },
      h3: { fontSize: "0.95rem" },
    },
  },
  components: {
    Button: { defaultProps: { size: "sm", fw: 560 } },
    Tooltip: { defaultProps: { openDelay: 350, withArrow: true } },
    // The placeholder is a focusable element that a menu may not contain; the first item gets the focus.
    Menu: { defaultProps: { withInitialFocusPlaceholder: false } },
    Modal: { defaultProps: { centered: true, overlayProps: { blur: 2 } } },
    ActionIcon: { defaultProps: { variant: "subtle", color: "gray" } },
    Badge: { defaultProps: { tt: "none" } },
    Paper: { defaultProps: { withBorder: true } },
    Table: { defaultProps: { verticalSpacing: 7, horizontalSpacing: "sm", fz: 13 } },
  },
});

/**
 * The library's red for what is wrong with a field has too little contrast in either scheme; and in the
 * dark it writes red buttons in white: nothing would say that they are dangerous.
 */
export const cssVariables: CSSVariablesResolver = () => ({
  variables: {},
  light: { "--mantine-color-error": "var(--mantine-color-red-7)" },
  dark: {
    "--mantine-color-red-light-color": "var(--mantine-color-red-3)",
    "--mantine-color-error": "var(--mantine-color-red-4)",
  },
});

const KEY = "underpass.color-scheme";

/** The same key that public/color-scheme.js reads before the first paint. */
export const colorSchemeManager = (): MantineColorSchemeManager => ({
  get: (initial) => {
    try {
      const value = localStorage.getItem(KEY);
      return value === "light" || value === "dark" || value === "auto" ? value : initial;
    } catch {
      return initial;
    }
  },
  set: (value) => {
    try {
      localStorage.setItem(KEY, value);
    } catch {
      // Lasts until the page is closed.
    }
  },
  subscribe: () => undefined,
  unsubscribe: () => undefined,
  clear: () => localStorage.removeItem(KEY),
});
