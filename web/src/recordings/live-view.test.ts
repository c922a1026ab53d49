import { expect, it, vi } from "vitest";

vi.mock("@xterm/xterm", () => ({ Terminal: class {} }));
vi.mock("@xterm/xterm/css/xterm.css", () => ({}));
const { showLine } = await import("./LiveView");

it("draws output and sizes, and passes over everything else", () => {
  const term = { write: vi.fn(), resize: vi.fn() };
  for (const line of [
    '{"version":2,"width":100,"height":30}',
    '[0.1,"o","hi"]',
    '[0.2,"r","90x20"]',
    '[0.3,"i","secret"]',
    '[0.4,"m","x"]',
    '[0.5,"r","9999x1"]',
    "torn",
    "7",
  ])
    showLine(term, line);
  expect(term.write.mock.calls).toEqual([["hi"]]);
  expect(term.resize.mock.calls).toEqual([
    [100, 30],
    [90, 20],
  ]);
});
