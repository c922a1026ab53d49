// Closing a pane whose shell still runs: leave it running for its grace time, or end it. A shell that
// has ended, or that is only watched, closes without a question.

import { Button, Group, Stack, Text } from "@mantine/core";
import { modals } from "@mantine/modals";
import { useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";
import { useT } from "../i18n";
import { attempt } from "../machines/queries";
import { endSession } from "../sessions/queries";
import { closePane, paneIds } from "./layout";
import { changeLayout, readCurrentLayout } from "./layout-store";
import { dropPaneState, readPaneState } from "./pane-state";

/** The session that would lose its person, or null when nothing is at stake. */
const liveSession = (paneId: string): string | null => {
  const pane = readCurrentLayout().panes[paneId];
  const view = readPaneState(paneId)?.view;
  if (pane?.mode !== "own" || !view || view.phase === "ended" || view.phase === "failed")
    return null;
  return view.sessionId;
};

const drop = (ids: readonly string[]) => {
  for (const id of ids) {
    changeLayout((layout) => closePane(layout, id));
    dropPaneState(id);
  }
};

function useClose() {
  const t = useT();
  const queries = useQueryClient();
  return useCallback(
    (ids: readonly string[]) => {
      const live = ids.map(liveSession).filter((id) => id !== null);
      if (!live.length) return drop(ids);
      const modal = modals.open({
        title: t("closing.title"),
        children: (
          <Stack>
            <Text size="sm">{t("closing.text")}</Text>
            <Group justify="flex-end" gap="xs">
              <Button
                variant="default"
                onClick={() => {
                  modals.close(modal);
                  drop(ids);
                }}
              >
                {t("closing.keep")}
              </Button>
              <Button
                color="red"
                data-autofocus
                onClick={async () => {
                  modals.close(modal);
                  const ended = await attempt(t("sessions.endFailed"), () =>
                    Promise.all(live.map((id) => endSession(id))),
                  );
                  if (ended) drop(ids);
                  void queries.invalidateQueries({ queryKey: ["sessions"] });
                }}
              >
                {t("closing.end")}
              </Button>
            </Group>
          </Stack>
        ),
      });
    },
    [queries, t],
  );
}

export function useClosePane() {
  const close = useClose();
  return useCallback((id: string) => close([id]), [close]);
}

export function useCloseTab() {
  const close = useClose();
  return useCallback(
    (tabId: string) => {
      const tab = readCurrentLayout().tabs.find((one) => one.id === tabId);
      if (tab) close(paneIds(tab.root));
    },
    [close],
  );
}
