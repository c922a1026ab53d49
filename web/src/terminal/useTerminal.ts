// Joins a screen (xterm.js) and a connection (engine and socket) to a pane for as long as it lives.

import { useComputedColorScheme } from "@mantine/core";
import { useCallback, useEffect, useRef, useState } from "react";
import { get } from "../api/client";
import type { TerminalTicket } from "../api/types";
import { bytes } from "../app/format";
import { useSetting } from "../app/setting";
import { translate } from "../i18n";
import { TerminalConnection } from "./connection";
import { changePane, type PaneInfo } from "./layout";
import { changeLayout } from "./layout-store";
import { setPaneState } from "./pane-state";
import { preferences } from "./preferences";
import { type ScreenEvents, TerminalScreen } from "./screen";
import { themeNamed } from "./themes";

export interface TerminalHandle {
  host: (element: HTMLDivElement | null) => void;
  screen: TerminalScreen | null;
  retryNow(): void;
  /** Ends this view of the old shell and starts a new one in the same place. */
  reopen(): void;
  type(text: string): void;
}

type Callbacks = Pick<ScreenEvents, "confirmPaste" | "onShortcut" | "onFocus"> & {
  /** Lets the key bar's sticky Ctrl change what is typed. */
  transform(data: Uint8Array): Uint8Array;
};

export function useTerminal(
  id: string,
  pane: PaneInfo,
  visible: boolean,
  callbacks: Callbacks,
): TerminalHandle {
  const [host, setHost] = useState<HTMLDivElement | null>(null);
  const [screen, setScreen] = useState<TerminalScreen | null>(null);
  const [run, setRun] = useState(0);
  const connection = useRef<TerminalConnection | null>(null);
  const scheme = useComputedColorScheme("dark");
  const [chosen] = useSetting(preferences);
  // The effect below must not start a new shell because a callback or a colour changed.
  const latest = useRef({ callbacks, pane, scheme });
  latest.current = { callbacks, pane, scheme };

  // biome-ignore lint/correctness/useExhaustiveDependencies: `run` starts over on purpose
  useEffect(() => {
    if (!host) return;
    const start = latest.current.pane;
    const made = new TerminalScreen(
      host,
      {
        onInput: (data) => connection.current?.type(latest.current.callbacks.transform(data)),
        onSize: (cols, rows) => connection.current?.resize(cols, rows),
        onTitle: (title) => setPaneState(id, { title }),
        confirmPaste: (text, lines) => latest.current.callbacks.confirmPaste(text, lines),
        onShortcut: (event) => latest.current.callbacks.onShortcut(event),
        onFocus: () => latest.current.callbacks.onFocus(),
      },
      {
        theme: themeNamed(preferences.get().theme, latest.current.scheme),
        preferences: preferences.get(),
        follows: start.mode !== "own",
        label: translate("terminal.label", { name: start.machineName }),
      },
    );
    // What a returning page is sent first is old: nobody is to answer it.
    if (start.sessionId) made.beQuiet();
    connection.current = new TerminalConnection({
      mode: start.mode,
      sessionId: start.sessionId,
      ...made.size,
      screen: {
        write: (data, shown) => made.write(data, shown),
        skipped: (count, early) =>
          made.note(
            early
              ? translate("terminal.earlier")
              : translate("terminal.skipped", { size: bytes(count) }),
          ),
        adoptSize: (cols, rows) => made.adoptSize(cols, rows),
      },
      authorise: async ({ cols, rows, sessionId }) => {
        // Watching and joining are authorised by the sign-in itself, on the socket.
        if (start.mode !== "own") return null;
        const ticket = await get<TerminalTicket>("/api/v1/assets/{asset_id}/tty/authorize", {
          path: { asset_id: start.machineId },
          // Named, so that coming back to a session is not counted as one more.
          query: { cols, rows, session_id: sessionId ?? undefined },
        });
        return ticket.token;
      },
      onView: (view) => {
        setPaneState(id, { view });
        const ended = view.phase === "ended";
        const { sessionId } = view;
        changeLayout((layout) => {
          const now = layout.panes[id];
          if (!now || (now.sessionId === sessionId && !!now.ended === ended)) return layout;
          return changePane(layout, id, { sessionId, ended });
        });
      },
    });
    setScreen(made);
    return () => {
      connection.current?.dispose();
      connection.current = null;
      made.dispose();
      setScreen(null);
    };
  }, [host, id, run]);

  useEffect(
    () => screen?.apply(themeNamed(chosen.theme, scheme), chosen),
    [screen, chosen, scheme],
  );
  useEffect(() => screen?.setVisible(visible), [screen, visible]);

  const retryNow = useCallback(() => connection.current?.retryNow(), []);
  const type = useCallback(
    (text: string) => connection.current?.type(new TextEncoder().encode(text)),
    [],
  );
  const reopen = useCallback(() => {
    changeLayout((layout) =>
      changePane(layout, id, { sessionId: null, mode: "own", ended: false }),
    );
    setPaneState(id, { title: "" });
    setRun((before) => before + 1);
  }, [id]);
  return { host: setHost, screen, retryNow, reopen, type };
}
