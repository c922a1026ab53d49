import { expect, it } from "vitest";
import { keepPoints, NO_POINTS } from "./points";

const stats = (sent_rate: number) => ({ sent_rate, received_rate: 2 * sent_rate });

it("keeps one point an answer, in rising order", () => {
  let points = keepPoints(NO_POINTS, stats(1), 10);
  points = keepPoints(points, stats(2), 12);
  points = keepPoints(points, stats(9), 12);
  expect(points).toEqual({ time: [10, 12], sent: [1, 2], received: [2, 4] });
});

it("keeps the last quarter of an hour", () => {
  let points = NO_POINTS;
  for (let n = 1; n <= 1000; n++) points = keepPoints(points, stats(n), n);
  expect(points.time).toHaveLength(450);
  expect(points.sent.at(0)).toBe(551);
  expect(points.received.at(-1)).toBe(2000);
});
