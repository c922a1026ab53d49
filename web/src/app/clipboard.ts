// Writing to the clipboard, with and without a secure context.

export async function copyText(text: string): Promise<boolean> {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed here (no user gesture, policy): try the older way.
    }
  }
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  // Inside a dialog the focus trap would take the focus from an element outside it.
  (focused?.closest("[role=dialog]") ?? document.body).append(area);
  area.select();
  // Deprecated, and the only way over plain http.
  const done = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return done;
}
