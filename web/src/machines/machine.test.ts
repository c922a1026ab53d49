import { expect, it } from "vitest";
import { machine } from "../../mock/data";
import type { Machine } from "../api/types";
import {
  compareMachines,
  labelsToText,
  matches,
  memoryPercent,
  parseFilter,
  textToLabels,
} from "./machine";

const made = (n: number, change: Partial<Machine> = {}) => ({
  ...(machine(n) as unknown as Machine),
  ...change,
});

it("filters by words in any of the visible fields and by label", () => {
  const one = made(1, { name: "web-01", labels: { env: "prod" } });
  const found = (text: string) => matches(one, parseFilter(text));
  expect(found("")).toBe(true);
  expect(found("WEB prod")).toBe(true);
  expect(found("env=prod web")).toBe(true);
  expect(found("env=")).toBe(true);
  expect(found("env=dev")).toBe(false);
  expect(found("web nothing")).toBe(false);
});

it("sorts usable machines first, and numbers in names by value", () => {
  const list = [
    made(1, { name: "a", status: "offline" }),
    made(2, { name: "web-10", status: "online" }),
    made(3, { name: "web-2", status: "online" }),
  ];
  expect(list.sort(compareMachines).map((one) => one.name)).toEqual(["web-2", "web-10", "a"]);
});

it("labels survive the way through the form, values with = included", () => {
  const labels = { env: "prod", note: "a=b" };
  expect(textToLabels(labelsToText(labels))).toEqual(labels);
  expect(textToLabels(["no label"])).toBeNull();
});

it("computes the memory share when only the amounts are known", () => {
  expect(memoryPercent(made(1, { dynamic_info: { memory_used: 1, memory_total: 4 } }))).toBe(25);
  expect(memoryPercent(made(1, { dynamic_info: {} }))).toBeUndefined();
});
