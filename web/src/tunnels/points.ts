// The points behind a mapping's charts: what the page saw pass since it was opened.

import type { MappingLiveStats } from "../api/types";

export interface RatePoints {
  /** Unix seconds, strictly rising. */
  time: number[];
  sent: number[];
  received: number[];
}

export const NO_POINTS: RatePoints = { time: [], sent: [], received: [] };

/** Fifteen minutes of two-second points. */
const KEEP = 450;

export function keepPoints(
  { time, sent, received }: RatePoints,
  stats: Pick<MappingLiveStats, "sent_rate" | "received_rate">,
  now: number,
): RatePoints {
  if (now <= (time.at(-1) ?? 0)) return { time, sent, received }; // the same answer again
  return {
    time: [...time.slice(1 - KEEP), now],
    sent: [...sent.slice(1 - KEEP), stats.sent_rate],
    received: [...received.slice(1 - KEEP), stats.received_rate],
  };
}
