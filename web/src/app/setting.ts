// A preference of this browser: kept in localStorage, shared by every component that reads it.

import { useSyncExternalStore } from "react";

export interface Setting<T> {
  get(): T;
  set(value: T): void;
  subscribe(listener: () => void): () => void;
}

export function setting<T>(
  name: string,
  initial: T,
  valid: (value: unknown) => value is T,
): Setting<T> {
  const key = `underpass.${name}`;
  const listeners = new Set<() => void>();
  let value = initial;
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(key) ?? "null");
    if (valid(stored)) value = stored;
  } catch {
    // Storage forbidden or its content damaged: the initial value is right.
  }
  return {
    get: () => value,
    set(next) {
      value = next;
      try {
        localStorage.setItem(key, JSON.stringify(next));
      } catch {
        // Lasts until the page is closed.
      }
      for (const listener of listeners) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
  };
}

export function useSetting<T>(one: Setting<T>): [T, (value: T) => void] {
  return [useSyncExternalStore(one.subscribe, one.get), one.set];
}
