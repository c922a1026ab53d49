// What the player does not tell about an asciicast: when its events are, and where a moment of the
// real time line lies once idle stretches are cut short.

export interface CastTimes {
  /** Seconds since the start, of every event. */
  raw: Float64Array;
  /** The same events with idle stretches cut to the limit. */
  shown: Float64Array;
}

/**
 * A cast without its torn tail: a recording that was cut off by a crash, or is still being written,
 * may end in the middle of a line.
 */
export function wholeLines(text: string): string {
  const end = text.lastIndexOf("\n");
  return end < 0 ? text : text.slice(0, end + 1);
}

const version = (text: string): number => {
  try {
    return Number(JSON.parse(text.slice(0, text.indexOf("\n"))).version);
  } catch {
    return 2;
  }
};

/** `idleLimit` in seconds; infinity leaves the time line as it was. */
export function castTimes(text: string, idleLimit: number): CastTimes {
  const relative = version(text) === 3; // v3 counts from the event before, v2 from the start
  const raw: number[] = [];
  const shown: number[] = [];
  let before = 0;
  let total = 0;
  // Only the number at a line's head is wanted: parsing each line would cost seconds on a long cast.
  for (const match of text.matchAll(/^\[\s*([\d.eE+-]+)/gm)) {
    const value = Number(match[1]);
    if (!Number.isFinite(value)) continue;
    const time = relative ? before + value : Math.max(before, value);
    total += Math.min(time - before, idleLimit);
    before = time;
    raw.push(time);
    shown.push(total);
  }
  return { raw: Float64Array.from(raw), shown: Float64Array.from(shown) };
}

/** Translates a moment of one time line into the other: `from` and `to` list the same events. */
export function translateTime(time: number, from: Float64Array, to: Float64Array): number {
  let low = 0;
  let high = from.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((from[middle] ?? 0) <= time) low = middle + 1;
    else high = middle;
  }
  // `low` is the first event after `time`; we are that far past the one before it.
  const base = low ? (to[low - 1] ?? 0) : 0;
  const past = time - (low ? (from[low - 1] ?? 0) : 0);
  const next = low < to.length ? (to[low] ?? 0) : Number.POSITIVE_INFINITY;
  return Math.max(0, Math.min(base + past, next));
}
