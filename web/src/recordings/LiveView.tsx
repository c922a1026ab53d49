// A recording that is still being made, as it grows. The lines of the asciicast come over a
// WebSocket; what is drawn is their output, in a terminal that takes no keys.

import { Group, Loader, Text, useComputedColorScheme } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { useEffect, useRef, useState } from "react";
import { useT } from "../i18n";
import { bufferText, type TerminalElement } from "../terminal/buffer-text";
import { backoff } from "../terminal/protocol";
import { themeNamed } from "../terminal/themes";

type State = "connecting" | "live" | "over";

/** One line of a cast on a terminal; damaged lines and unknown codes are passed over. */
export function showLine(term: Pick<Terminal, "write" | "resize">, line: string): void {
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch {
    return;
  }
  if (Array.isArray(event)) {
    const [, code, data] = event as unknown[];
    if (typeof data !== "string") return;
    if (code === "o") term.write(data);
    if (code === "r") resizeTo(term, data.split("x").map(Number));
  } else if (typeof event === "object" && event !== null) {
    const { width, height } = event as { width?: number; height?: number };
    resizeTo(term, [width, height]);
  }
}

function resizeTo(term: Pick<Terminal, "resize">, [cols, rows]: (number | undefined)[]): void {
  if (cols && rows && cols >= 1 && rows >= 1 && cols <= 1000 && rows <= 1000)
    term.resize(cols, rows);
}

export function LiveView({ id }: { id: string }) {
  const t = useT();
  const queries = useQueryClient();
  const scheme = useComputedColorScheme("dark");
  const host = useRef<HTMLDivElement>(null);
  const [state, setState] = useState<State>("connecting");

  useEffect(() => {
    const element: TerminalElement | null = host.current;
    if (!element) return;
    const term = new Terminal({
      disableStdin: true,
      scrollback: 5_000,
      fontSize: 13,
      theme: themeNamed("auto", scheme),
    });
    term.open(element);
    element.readText = () => bufferText(term);
    let socket: WebSocket;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let attempt = 0;
    let stopped = false;
    const connect = () => {
      const url = new URL(
        `/api/v1/recordings/${encodeURIComponent(id)}/live?offset=0`,
        window.location.href,
      );
      url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
      socket = new WebSocket(url.href);
      socket.onopen = () => {
        attempt = 0;
        term.reset(); // the whole cast comes again: no gap, nothing twice
        setState("live");
      };
      socket.onmessage = ({ data }: MessageEvent<unknown>) => {
        if (typeof data === "string")
          for (const line of data.split("\n")) if (line) showLine(term, line);
      };
      socket.onclose = ({ code }) => {
        if (stopped) return;
        if (code === 1000 || (code >= 4400 && code < 4500)) {
          setState("over");
          void queries.invalidateQueries({ queryKey: ["recordings"] });
          return;
        }
        setState("connecting");
        timer = setTimeout(connect, backoff(attempt++, Math.random));
      };
    };
    connect();
    return () => {
      stopped = true;
      clearTimeout(timer);
      socket.close(1000);
      term.dispose();
    };
  }, [id, queries, scheme]);

  return (
    <div>
      <Group gap="xs" mb="xs" role="status">
        {state === "connecting" && <Loader size={12} />}
        <Text size="sm" c="dimmed" className={state === "live" ? "live-badge" : undefined}>
          {t(`live.${state}`)}
        </Text>
      </Group>
      <div className="live-screen" ref={host} data-testid="live-recording" />
    </div>
  );
}
