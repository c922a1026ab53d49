// Tabs and splits as plain data: pure functions from one layout to the next. A tab is a binary tree
// of splits; its panes are drawn from a flat list of rectangles, so that splitting or closing one
// never takes another terminal out of the page.

import type { Mode } from "./conversation";

export interface PaneInfo {
  machineId: string;
  machineName: string;
  mode: Mode;
  /** Null until the gateway has answered; a reloaded page returns to it. */
  sessionId: string | null;
  /** Its shell is over: a reloaded page has nothing to return to. */
  ended?: boolean;
}

export type Direction = "row" | "column";
export type Node =
  | { kind: "pane"; id: string }
  | { kind: "split"; id: string; direction: Direction; ratio: number; first: Node; second: Node };

export interface Tab {
  id: string;
  root: Node;
  focused: string;
}

export interface Layout {
  tabs: Tab[];
  active: string | null;
  panes: Record<string, PaneInfo>;
  /** The next free id; ids are never used twice in a page. */
  next: number;
}

export interface Rect {
  left: number;
  top: number;
  width: number;
  height: number;
}

export const EMPTY: Layout = { tabs: [], active: null, panes: {}, next: 1 };
export const MAX_PANES = 24;

export const paneIds = (node: Node): string[] =>
  node.kind === "pane" ? [node.id] : [...paneIds(node.first), ...paneIds(node.second)];

export const tabOf = (layout: Layout, paneId: string): Tab | undefined =>
  layout.tabs.find((tab) => paneIds(tab.root).includes(paneId));

const replace = (node: Node, id: string, by: (node: Node) => Node): Node => {
  if (node.id === id) return by(node);
  if (node.kind === "pane") return node;
  return { ...node, first: replace(node.first, id, by), second: replace(node.second, id, by) };
};

const withTab = (layout: Layout, id: string, change: (tab: Tab) => Tab): Layout => ({
  ...layout,
  tabs: layout.tabs.map((tab) => (tab.id === id ? change(tab) : tab)),
});

const full = (layout: Layout) => Object.keys(layout.panes).length >= MAX_PANES;

export function openTab(layout: Layout, pane: PaneInfo): Layout {
  // A session on screen already is shown, not opened a second time beside itself.
  const there = Object.entries(layout.panes).find(
    ([, one]) =>
      pane.sessionId !== null && one.sessionId === pane.sessionId && one.mode === pane.mode,
  );
  if (there) return focusPane(layout, there[0]);
  if (full(layout)) return layout;
  const id = `p${layout.next}`;
  const tab: Tab = { id: `t${layout.next}`, root: { kind: "pane", id }, focused: id };
  return {
    tabs: [...layout.tabs, tab],
    active: tab.id,
    panes: { ...layout.panes, [id]: pane },
    next: layout.next + 1,
  };
}

export function splitPane(
  layout: Layout,
  paneId: string,
  direction: Direction,
  pane: PaneInfo,
): Layout {
  const tab = tabOf(layout, paneId);
  if (!tab || full(layout)) return layout;
  const id = `p${layout.next}`;
  const root = replace(tab.root, paneId, (first) => ({
    kind: "split",
    id: `s${layout.next}`,
    direction,
    ratio: 0.5,
    first,
    second: { kind: "pane", id },
  }));
  const next = { ...layout, panes: { ...layout.panes, [id]: pane }, next: layout.next + 1 };
  return withTab(next, tab.id, (one) => ({ ...one, root, focused: id }));
}

const without = (node: Node, id: string): Node | null => {
  if (node.kind === "pane") return node.id === id ? null : node;
  const first = without(node.first, id);
  const second = without(node.second, id);
  return first && second ? { ...node, first, second } : (first ?? second);
};

export function closePane(layout: Layout, paneId: string): Layout {
  const tab = tabOf(layout, paneId);
  if (!tab) return layout;
  const { [paneId]: _, ...panes } = layout.panes;
  const root = without(tab.root, paneId);
  if (root) {
    const focused = tab.focused === paneId ? (paneIds(root)[0] ?? "") : tab.focused;
    return withTab({ ...layout, panes }, tab.id, (one) => ({ ...one, root, focused }));
  }
  const index = layout.tabs.indexOf(tab);
  const tabs = layout.tabs.filter((one) => one !== tab);
  const neighbour = tabs[Math.min(index, tabs.length - 1)]?.id ?? null;
  return { ...layout, panes, tabs, active: layout.active === tab.id ? neighbour : layout.active };
}

export function focusPane(layout: Layout, paneId: string): Layout {
  const tab = tabOf(layout, paneId);
  if (!tab) return layout;
  if (layout.active === tab.id && tab.focused === paneId) return layout;
  return withTab({ ...layout, active: tab.id }, tab.id, (one) => ({ ...one, focused: paneId }));
}

export const activate = (layout: Layout, tabId: string): Layout =>
  layout.tabs.some((tab) => tab.id === tabId) ? { ...layout, active: tabId } : layout;

export function changePane(layout: Layout, paneId: string, change: Partial<PaneInfo>): Layout {
  const pane = layout.panes[paneId];
  if (!pane) return layout;
  return { ...layout, panes: { ...layout.panes, [paneId]: { ...pane, ...change } } };
}

export function setRatio(layout: Layout, splitId: string, ratio: number): Layout {
  const clamped = Math.min(0.9, Math.max(0.1, ratio));
  return {
    ...layout,
    tabs: layout.tabs.map((tab) => ({
      ...tab,
      root: replace(tab.root, splitId, (node) =>
        node.kind === "split" ? { ...node, ratio: clamped } : node,
      ),
    })),
  };
}

export interface Placed {
  panes: { id: string; rect: Rect }[];
  /** `area` is what the split divides; the divider lies inside it at `ratio`. */
  dividers: { id: string; direction: Direction; ratio: number; area: Rect }[];
}

/** Where each pane of a tab goes, in fractions of the whole. */
export function place(node: Node, area: Rect = { left: 0, top: 0, width: 1, height: 1 }): Placed {
  if (node.kind === "pane") return { panes: [{ id: node.id, rect: area }], dividers: [] };
  const { direction, ratio } = node;
  const row = direction === "row";
  const first = row
    ? { ...area, width: area.width * ratio }
    : { ...area, height: area.height * ratio };
  const second = row
    ? { ...area, left: area.left + first.width, width: area.width - first.width }
    : { ...area, top: area.top + first.height, height: area.height - first.height };
  const a = place(node.first, first);
  const b = place(node.second, second);
  return {
    panes: [...a.panes, ...b.panes],
    dividers: [{ id: node.id, direction, ratio, area }, ...a.dividers, ...b.dividers],
  };
}

/**
 * A layout from storage without the shells that are over, or null when it is not one of ours (older
 * version, damaged, tampered).
 */
export function readLayout(raw: unknown): Layout | null {
  if (typeof raw !== "object" || raw === null) return null;
  const { tabs, panes, active, next } = raw as Partial<Layout>;
  if (!Array.isArray(tabs) || typeof panes !== "object" || panes === null) return null;
  if (typeof next !== "number" || (active !== null && typeof active !== "string")) return null;
  try {
    const ids = tabs.flatMap((tab) => paneIds(tab.root));
    const known = ids.every((id) => typeof panes[id]?.machineId === "string");
    if (!known || ids.length !== Object.keys(panes).length || ids.length > MAX_PANES) return null;
  } catch {
    return null;
  }
  const layout: Layout = { tabs, panes, active, next };
  return Object.entries(panes)
    .filter(([, pane]) => pane.ended)
    .reduce((rest, [id]) => closePane(rest, id), layout);
}
