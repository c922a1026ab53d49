import { expect, it } from "vitest";
import { castTimes, translateTime, wholeLines } from "./cast";

const cast = (version: number, times: number[]) =>
  `${JSON.stringify({ version, width: 80, height: 24 })}\n${times.map((time) => JSON.stringify([time, "o", "[9.9 x"])).join("\n")}\n`;

it("drops a torn last line and keeps whole ones", () => {
  const whole = cast(2, [1, 2]);
  expect(wholeLines(`${whole}[3.1,"o","to`)).toBe(whole);
  expect(wholeLines(whole)).toBe(whole);
});

it("reads absolute and relative times alike", () => {
  expect([...castTimes(cast(2, [1, 3, 10]), 99).raw]).toEqual([1, 3, 10]);
  expect([...castTimes(cast(3, [1, 2, 7]), 99).raw]).toEqual([1, 3, 10]);
});

it("cuts idle stretches and finds a moment on either time line", () => {
  const { raw, shown } = castTimes(cast(2, [1, 2, 60, 61]), 2);
  expect([...shown]).toEqual([1, 2, 4, 5]);
  expect(translateTime(60, raw, shown)).toBe(4);
  expect(translateTime(2.5, raw, shown)).toBe(2.5);
  expect(translateTime(40, raw, shown)).toBe(4); // inside the cut: where it ends
  expect(translateTime(4, shown, raw)).toBe(60);
  expect(translateTime(0, raw, shown)).toBe(0);
  expect(translateTime(5, new Float64Array(), new Float64Array())).toBe(5);
});
