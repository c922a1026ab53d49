// The one layout of this browser tab. Kept in sessionStorage (session ids, which open nothing by
// themselves; never tokens), so that a reload returns to the same shells.

import { useSyncExternalStore } from "react";
import { EMPTY, type Layout, readLayout } from "./layout";

const KEY = "underpass.terminals";
const listeners = new Set<() => void>();

const restore = (): Layout => {
  try {
    return readLayout(JSON.parse(sessionStorage.getItem(KEY) ?? "null")) ?? EMPTY;
  } catch {
    return EMPTY;
  }
};

let layout = restore();

export function changeLayout(change: (layout: Layout) => Layout): void {
  const next = change(layout);
  if (next === layout) return;
  layout = next;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(next));
  } catch {
    // Without storage a reload starts with no terminals; they can be returned to from Sessions.
  }
  for (const listener of listeners) listener();
}

export const readCurrentLayout = (): Layout => layout;

export const useLayout = (): Layout =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
    () => layout,
  );
