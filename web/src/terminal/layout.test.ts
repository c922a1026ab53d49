import { expect, it } from "vitest";
import {
  activate,
  changePane,
  closePane,
  EMPTY,
  focusPane,
  type Layout,
  MAX_PANES,
  openTab,
  type PaneInfo,
  paneIds,
  place,
  readLayout,
  setRatio,
  splitPane,
} from "./layout";

const pane = (name: string, sessionId: string | null = null): PaneInfo => ({
  machineId: name,
  machineName: name,
  mode: "own",
  sessionId,
});
const two = () => openTab(openTab(EMPTY, pane("a")), pane("b"));

it("opens a tab for each machine and shows the newest", () => {
  const layout = two();
  expect(layout.tabs.map((tab) => tab.id)).toEqual(["t1", "t2"]);
  expect(layout.active).toBe("t2");
});

it("shows a session that is open already instead of opening it twice", () => {
  const layout = openTab(openTab(openTab(EMPTY, pane("a", "s1")), pane("b")), pane("a", "s1"));
  expect(layout.tabs.length).toBe(2);
  expect(layout.active).toBe("t1");
});

it("splits, and places the panes without gaps", () => {
  let layout = openTab(EMPTY, pane("a"));
  layout = splitPane(layout, "p1", "row", pane("b"));
  layout = splitPane(layout, "p2", "column", pane("c"));
  const root = layout.tabs[0]?.root;
  if (!root) throw new Error("no tab");
  expect(paneIds(root)).toEqual(["p1", "p2", "p3"]);
  const { panes, dividers } = place(root);
  expect(panes.map((one) => one.rect)).toEqual([
    { left: 0, top: 0, width: 0.5, height: 1 },
    { left: 0.5, top: 0, width: 0.5, height: 0.5 },
    { left: 0.5, top: 0.5, width: 0.5, height: 0.5 },
  ]);
  expect(dividers.map((one) => one.direction)).toEqual(["row", "column"]);
  expect(panes.reduce((sum, { rect }) => sum + rect.width * rect.height, 0)).toBeCloseTo(1);
});

it("closing a pane gives its room to its neighbour; closing the last closes the tab", () => {
  let layout = splitPane(two(), "p2", "row", pane("c"));
  layout = closePane(layout, "p2");
  expect(layout.tabs[1]).toMatchObject({ root: { kind: "pane", id: "p3" }, focused: "p3" });
  layout = closePane(layout, "p3");
  expect(layout).toMatchObject({ active: "t1", panes: { p1: pane("a") } });
  expect(closePane(layout, "p1")).toMatchObject({ tabs: [], active: null, panes: {} });
});

it("keeps ratios within reach and ignores unknown ids", () => {
  let layout = splitPane(openTab(EMPTY, pane("a")), "p1", "row", pane("b"));
  layout = setRatio(layout, "s2", 5);
  expect(layout.tabs[0]?.root).toMatchObject({ ratio: 0.9 });
  for (const same of [
    closePane(layout, "x"),
    focusPane(layout, "x"),
    activate(layout, "x"),
    changePane(layout, "x", {}),
    splitPane(layout, "x", "row", pane("z")),
  ])
    expect(same).toBe(layout);
});

it("remembers the session of a pane", () => {
  expect(changePane(two(), "p1", { sessionId: "s" }).panes.p1?.sessionId).toBe("s");
});

it("does not open more panes than a browser can draw", () => {
  let layout: Layout = EMPTY;
  for (let n = 0; n < MAX_PANES + 3; n++) layout = openTab(layout, pane(String(n)));
  expect(layout.tabs.length).toBe(MAX_PANES);
});

it("does not return to shells that are over", () => {
  const layout = changePane(two(), "p1", { ended: true });
  expect(readLayout(JSON.parse(JSON.stringify(layout)))).toMatchObject({
    active: "t2",
    panes: { p2: pane("b") },
  });
});

it("reads back what it stored and refuses what it did not", () => {
  const layout = splitPane(two(), "p1", "column", pane("c"));
  expect(readLayout(JSON.parse(JSON.stringify(layout)))).toEqual(layout);
  for (const bad of [
    null,
    1,
    {},
    { tabs: [{}], panes: {}, active: null, next: 1 },
    { ...layout, panes: {} },
  ])
    expect(readLayout(bad)).toBeNull();
});
