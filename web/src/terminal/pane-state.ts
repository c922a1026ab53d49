// What each pane's connection says right now, for its own header and for the tab bar.

import { useSyncExternalStore } from "react";
import type { View } from "./conversation";

export interface PaneState {
  view: View;
  title: string;
}

export const IDLE_VIEW: View = {
  phase: "idle",
  sessionId: null,
  rtt: null,
  trunkLost: false,
  retryAt: null,
  attempt: 0,
  exit: null,
  failure: null,
  pendingInput: 0,
  others: [],
  started: false,
};

const listeners = new Set<() => void>();
let states: Record<string, PaneState> = {};

const publish = (next: Record<string, PaneState>) => {
  states = next;
  for (const listener of listeners) listener();
};

export function setPaneState(id: string, change: Partial<PaneState>): void {
  const before = states[id] ?? { view: IDLE_VIEW, title: "" };
  // Keystrokes and acknowledgements arrive by the dozen; only what is visible is worth a render.
  if (change.view && change.title === undefined && sameView(before.view, change.view)) return;
  publish({ ...states, [id]: { ...before, ...change } });
}

export function dropPaneState(id: string): void {
  const { [id]: _, ...rest } = states;
  publish(rest);
}

const sameView = (a: View, b: View): boolean =>
  a.phase === b.phase &&
  a.sessionId === b.sessionId &&
  a.rtt === b.rtt &&
  a.trunkLost === b.trunkLost &&
  a.retryAt === b.retryAt &&
  a.exit === b.exit &&
  a.failure === b.failure &&
  a.started === b.started &&
  a.pendingInput === b.pendingInput &&
  a.others.join() === b.others.join();

export const usePaneStates = (): Record<string, PaneState> =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
    () => states,
  );

export const readPaneState = (id: string): PaneState | undefined => states[id];
