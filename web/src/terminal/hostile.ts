// What comes out of a shell, or out of a clipboard, is not ours and may mean harm. These functions
// say what of it may pass: pasted text, clipboard writes (OSC 52), titles, links, terminal reports.

/** OSC 52 may put at most this much into the clipboard. */
export const CLIPBOARD_LIMIT = 1024 * 1024;
const TITLE_LIMIT = 80;

/**
 * Pasted text without control characters. ESC would end bracketed paste from within and run the
 * rest as typed commands; ^C, ^D and the C1 set have no business in a paste either.
 */
export const cleanPaste = (text: string): string =>
  text.replace(/\r\n/g, "\n").replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g, "");

/** How many lines a paste would run; 1 when nothing is run before the person presses Enter. */
export const pasteLines = (text: string): number =>
  /[\r\n]/.test(text) ? text.split(/\r\n|\r|\n/).length : 1;

/**
 * The text an `OSC 52 ; c ; base64` wants in the clipboard, or null when it may not have its way:
 * a question (`?`) would hand the clipboard to the remote program, and so is never answered.
 */
export function clipboardText(payload: string): string | null {
  const split = payload.indexOf(";");
  if (split < 0) return null;
  const encoded = payload.slice(split + 1);
  if (encoded === "" || encoded === "?" || encoded.length > (CLIPBOARD_LIMIT * 4) / 3) return null;
  try {
    const raw = Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0));
    return new TextDecoder("utf-8", { fatal: true }).decode(raw);
  } catch {
    return null;
  }
}

/** A title for a tab: no control or direction characters, and not longer than a tab can bear. */
export const cleanTitle = (title: string): string =>
  title
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g, "")
    .trim()
    .slice(0, TITLE_LIMIT);

/** The address a link may open: http and https only, without a user name that fakes a host. */
export function safeLink(link: string): string | null {
  let url: URL;
  try {
    url = new URL(link);
  } catch {
    return null;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  return url.username || url.password ? null : url.href;
}

/**
 * Whether xterm produced this "input" by itself, in answer to a question in the output (cursor
 * position, device attributes, colours). While old output is replayed the question was answered long
 * ago, and a second answer would be typed into whatever runs now.
 */
export const isTerminalReport = (data: string): boolean =>
  /^\x1b(\[[?>=]?[\d;]*[cnRy]|\[\?[\d;]*\$y|\][\d;]+.*(\x07|\x1b\\)|P.*\x1b\\)$/s.test(data);

const CONTROL: Record<string, string> = {
  " ": "\0",
  "[": "\x1b",
  "\\": "\x1c",
  "]": "\x1d",
  "^": "\x1e",
  _: "\x1f",
  "?": "\x7f",
};

/** `c` with Ctrl held -> "\x03", for keyboards on screens, which have no Ctrl. */
export function withControl(key: string): string {
  if (/^[a-z]$/i.test(key)) return String.fromCharCode(key.toUpperCase().charCodeAt(0) & 0x1f);
  return CONTROL[key] ?? key;
}
