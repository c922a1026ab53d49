// A terminal's buffer as plain text: for tests, which cannot read a canvas.

import type { Terminal } from "@xterm/xterm";

/**
 * The element a terminal is drawn in. Playwright reads its screen with
 * `page.get_by_test_id("terminal").evaluate("e => e.readText()")`. A method on the element rather
 * than a global: it gives a script nothing that the page does not show anyway.
 */
export interface TerminalElement extends HTMLElement {
  readText?: () => string;
}

/** Scrolled-off lines included; lines that were only wrapped by the width are joined again. */
export function bufferText(term: Terminal): string {
  const buffer = term.buffer.active;
  let text = "";
  for (let row = 0; row < buffer.length; row++) {
    const line = buffer.getLine(row);
    if (!line) continue;
    if (row > 0 && !line.isWrapped) text += "\n";
    text += line.translateToString(!buffer.getLine(row + 1)?.isWrapped);
  }
  return text.trimEnd();
}
