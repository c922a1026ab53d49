import { expect, it } from "vitest";
import { readPoint, toSeries } from "./metrics";

it("reads a point in each of its forms", () => {
  const point = { time: 5, cpu: 10, memory: 20, disk: 30, load: 1 };
  expect(readPoint(point, 9)).toEqual(point);
  expect(
    readPoint(
      { dynamic_info: { cpu_percent: 7, memory_percent: 8, load: [0.5, 1, 1], disks: [] } },
      9,
    ),
  ).toEqual({ time: 9, cpu: 7, memory: 8, disk: null, load: 0.5 });
  expect(readPoint("nonsense", 9)).toBeNull();
});

it("keeps times strictly rising, RFC 3339 or seconds", () => {
  const point = (time: number | string) => ({ time, cpu: 1, memory: 1, disk: 1, load: 1 });
  expect(toSeries([point("1970-01-01T00:00:01Z"), point(1), point(0.5), point(2)]).time).toEqual([
    1, 2,
  ]);
});
