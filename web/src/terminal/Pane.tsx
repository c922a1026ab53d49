// One terminal: its header, the screen, what lies over it when something is wrong, and the key bar.

import { Text } from "@mantine/core";
import { modals } from "@mantine/modals";
import { spotlight } from "@mantine/spotlight";
import { memo, useCallback, useEffect, useRef, useState } from "react";
import { copyText } from "../app/clipboard";
import { useT } from "../i18n";
import { useClosePane } from "./closing";
import { withControl } from "./hostile";
import { KeyBar } from "./KeyBar";
import { type Direction, focusPane, type PaneInfo, type Rect, splitPane } from "./layout";
import { changeLayout } from "./layout-store";
import { Overlay } from "./Overlay";
import { PaneHeader } from "./PaneHeader";
import { IDLE_VIEW, usePaneStates } from "./pane-state";
import { zoom } from "./preferences";
import { SearchBar } from "./SearchBar";
import { isDark } from "./themes";
import { useTerminal } from "./useTerminal";

interface PaneProps {
  id: string;
  pane: PaneInfo;
  /** Where it is shown; null while its tab is in the background. */
  rect: Rect | null;
  pageVisible: boolean;
  focused: boolean;
  alone: boolean;
}

const PREVIEW = 600;

export const Pane = memo(function Pane({ id, pane, rect, pageVisible, focused, alone }: PaneProps) {
  const t = useT();
  const state = usePaneStates()[id];
  const view = state?.view ?? IDLE_VIEW;
  const visible = pageVisible && rect !== null;
  const closePane = useClosePane();
  const [searching, setSearching] = useState(false);
  const [control, setControl] = useState(false);
  const controlHeld = useRef(control);
  controlHeld.current = control;

  const split = useCallback(
    (direction: Direction, machine = { id: pane.machineId, name: pane.machineName }) =>
      changeLayout((layout) =>
        splitPane(layout, id, direction, {
          machineId: machine.id,
          machineName: machine.name,
          mode: "own",
          sessionId: null,
        }),
      ),
    [id, pane.machineId, pane.machineName],
  );

  const terminal = useTerminal(id, pane, visible, {
    confirmPaste: (text, lines) =>
      new Promise((resolve) =>
        modals.openConfirmModal({
          title: t("paste.title", { lines }),
          children: (
            <Text size="xs" ff="monospace" className="paste-preview">
              {text.length > PREVIEW ? `${text.slice(0, PREVIEW)}…` : text}
            </Text>
          ),
          labels: { confirm: t("paste.confirm"), cancel: t("action.cancel") },
          onConfirm: () => resolve(true),
          onCancel: () => resolve(false),
          onClose: () => resolve(false),
        }),
      ),
    onShortcut: (event) => {
      if (!event.ctrlKey || !event.shiftKey || event.altKey) {
        if (event.ctrlKey && !event.altKey && (event.key === "=" || event.key === "+"))
          return consume(event, () => zoom(1));
        if (event.ctrlKey && !event.altKey && event.key === "-")
          return consume(event, () => zoom(-1));
        return false;
      }
      switch (event.code) {
        case "KeyC":
          return consume(event, () => void copyText(terminal.screen?.term.getSelection() ?? ""));
        case "KeyV":
          return true; // not ours to do, but the browser's: it raises the paste event
        case "KeyF":
          return consume(event, () => setSearching(true));
        case "KeyK":
          return consume(event, spotlight.open);
        case "KeyE":
          return consume(event, () => split("row"));
        case "KeyO":
          return consume(event, () => split("column"));
        default:
          return false;
      }
    },
    onFocus: () => changeLayout((layout) => focusPane(layout, id)),
    transform: (data) => {
      if (!controlHeld.current) return data;
      setControl(false);
      const text = new TextDecoder().decode(data);
      return text.length === 1 ? new TextEncoder().encode(withControl(text)) : data;
    },
  });

  const { screen } = terminal;
  useEffect(() => {
    if (visible && focused) screen?.term.focus();
  }, [screen, visible, focused]);

  return (
    <section
      className="pane"
      aria-label={t("terminal.label", { name: pane.machineName })}
      data-focused={(focused && !alone) || undefined}
      data-phase={view.phase}
      hidden={rect === null}
      style={
        rect
          ? {
              left: `${rect.left * 100}%`,
              top: `${rect.top * 100}%`,
              width: `${rect.width * 100}%`,
              height: `${rect.height * 100}%`,
            }
          : undefined
      }
    >
      <PaneHeader
        pane={pane}
        title={state?.title ?? ""}
        view={view}
        onSearch={() => setSearching(true)}
        onSplit={split}
        onClose={() => closePane(id)}
      />
      <div className="pane-body">
        <div className="screen-frame">
          <div
            className="screen"
            ref={terminal.host}
            data-testid="terminal"
            data-phase={view.phase}
            data-session-id={view.sessionId ?? undefined}
          />
        </div>
        {searching && screen && (
          <SearchBar
            search={screen.search}
            dark={isDark(screen.term.options.theme?.background)}
            onClose={() => {
              setSearching(false);
              screen.search.clearDecorations();
              screen.term.focus();
            }}
          />
        )}
        <Overlay
          view={view}
          pane={pane}
          onRetry={terminal.retryNow}
          onReopen={terminal.reopen}
          onClose={() => closePane(id)}
        />
      </div>
      {pane.mode !== "observe" && screen && (
        <KeyBar
          term={screen.term}
          control={control}
          onControl={setControl}
          onType={terminal.type}
          onPaste={(text) => void screen.paste(text)}
        />
      )}
    </section>
  );
});

function consume(event: KeyboardEvent, action: () => void): true {
  event.preventDefault();
  event.stopPropagation();
  action();
  return true;
}
