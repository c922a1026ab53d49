import { expect, it } from "vitest";
import { en } from "./en";
import { zh } from "./zh";

it("both languages use the same values in the same texts", () => {
  const names = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();
  for (const key of Object.keys(en) as (keyof typeof en)[])
    expect(names(zh[key]), key).toEqual(names(en[key]));
});
