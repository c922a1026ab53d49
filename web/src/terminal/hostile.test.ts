import { expect, it } from "vitest";
import {
  CLIPBOARD_LIMIT,
  cleanPaste,
  cleanTitle,
  clipboardText,
  isTerminalReport,
  pasteLines,
  safeLink,
  withControl,
} from "./hostile";

it("a paste cannot leave bracketed paste", () => {
  expect(cleanPaste("echo hi\x1b[201~; rm -rf /\x03\x9b1m")).toBe("echo hi[201~; rm -rf /1m");
  expect(cleanPaste("a\tb\r\nc\nd 漢字 🙂")).toBe("a\tb\nc\nd 漢字 🙂");
});

it("counts lines, a trailing newline included, since it runs the command", () => {
  expect([pasteLines("ls"), pasteLines("ls\n"), pasteLines("a\r\nb\r\nc")]).toEqual([1, 2, 3]);
});

it("OSC 52 writes text and never reads", () => {
  expect(clipboardText(`c;${btoa("hello")}`)).toBe("hello");
  expect(clipboardText("c;4pyT")).toBe("✓");
  for (const bad of [
    "c;?",
    "c;",
    "c",
    "c;***",
    `c;${btoa("\xff\xfe")}`,
    `c;${"A".repeat(CLIPBOARD_LIMIT * 2)}`,
  ])
    expect(clipboardText(bad)).toBeNull();
});

it("titles are short and plain", () => {
  expect(cleanTitle("\u202eevil\u0007 \x1b]0;x")).toBe("evil ]0;x");
  expect(cleanTitle("x".repeat(500)).length).toBe(80);
});

it("links are http or https and show where they lead", () => {
  expect(safeLink("https://example.org/a?b")).toBe("https://example.org/a?b");
  for (const bad of [
    "javascript:alert(1)",
    "file:///etc/passwd",
    "data:text/html,x",
    "https://bank.example@evil.example",
    "nonsense",
  ])
    expect(safeLink(bad)).toBeNull();
});

it("knows a terminal's own answers from typing", () => {
  for (const report of [
    "\x1b[?1;2c",
    "\x1b[12;40R",
    "\x1b[>0;276;0c",
    "\x1b[0n",
    "\x1b]10;rgb:ff/ff/ff\x1b\\",
    "\x1bP1$r0m\x1b\\",
  ])
    expect(isTerminalReport(report)).toBe(true);
  for (const typed of ["a", "\x1b", "\x1b[A", "\x1b[3~", "\x1bOP", "ls\r", "\x1b[200~x\x1b[201~"])
    expect(isTerminalReport(typed)).toBe(false);
});

it("makes control characters for keyboards without Ctrl", () => {
  expect([
    withControl("c"),
    withControl("D"),
    withControl("["),
    withControl(" "),
    withControl("1"),
  ]).toEqual(["\x03", "\x04", "\x1b", "\0", "1"]);
});
