// Both languages of the console. English is in the first load and is the type of the dictionary, so
// a missing or misspelt key in the other language does not compile; Chinese is fetched when chosen.

import { useSyncExternalStore } from "react";
import { en } from "./en";

export type Key = keyof typeof en;
export type Dictionary = Record<Key, string>;
export type Language = "en" | "zh";

/** The names between braces in a text: `"{count} online"` needs `count`. */
type Names<Text extends string> = Text extends `${string}{${infer Name}}${infer Rest}`
  ? Name | Names<Rest>
  : never;
type Values<K extends Key> = [Names<(typeof en)[K]>] extends [never]
  ? [values?: undefined]
  : [values: Record<Names<(typeof en)[K]>, string | number>];
export type Translate = <K extends Key>(key: K, ...values: Values<K>) => string;

const STORAGE = "underpass.language";
const listeners = new Set<() => void>();
let language: Language = "en";
let dictionary: Dictionary = en;

const fill = (text: string, values?: Record<string, string | number>): string =>
  values ? text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? "")) : text;

export const translate: Translate = (key, ...values) =>
  fill(dictionary[key], values[0] as Record<string, string | number> | undefined);

export async function setLanguage(next: Language): Promise<void> {
  dictionary = next === "zh" ? (await import("./zh")).zh : en;
  language = next;
  document.documentElement.lang = next === "zh" ? "zh-CN" : "en";
  try {
    localStorage.setItem(STORAGE, next);
  } catch {
    // Without storage the choice lasts until the page is closed.
  }
  for (const listener of listeners) listener();
}

/** Loads the language last chosen, or the browser's, before the first render. */
export async function restoreLanguage(): Promise<void> {
  let chosen: string | null = null;
  try {
    chosen = localStorage.getItem(STORAGE);
  } catch {
    // As above.
  }
  const wanted = chosen ?? navigator.language;
  if (wanted.startsWith("zh")) await setLanguage("zh");
}

const subscribe = (listener: () => void) => {
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
  };
};

export const useLanguage = (): Language => useSyncExternalStore(subscribe, () => language);

/** `t("machines.title")`; the component renders again when the language changes. */
export function useT(): Translate {
  useLanguage();
  return translate;
}

/** The locale for dates and numbers. */
export const locale = (): string => (language === "zh" ? "zh-CN" : "en");
