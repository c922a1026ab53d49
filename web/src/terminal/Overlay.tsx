// What lies over a terminal that is not simply connected: it says what happens, what becomes of the
// shell meanwhile, and what the person can do. An ended shell leaves its last screen readable.

import { Button, Group, Loader, Paper, Text } from "@mantine/core";
import { useEffect, useState } from "react";
import { Link } from "react-router";
import { useT } from "../i18n";
import type { View } from "./conversation";
import type { PaneInfo } from "./layout";

interface OverlayProps {
  view: View;
  pane: PaneInfo;
  onRetry(): void;
  onReopen(): void;
  onClose(): void;
}

export function Overlay({ view, pane, onRetry, onReopen, onClose }: OverlayProps) {
  const t = useT();
  const name = pane.machineName;
  switch (view.phase) {
    case "attached":
      if (!view.started && pane.mode === "own" && !view.trunkLost)
        return (
          <div className="overlay overlay-quiet" role="status">
            <Group gap="sm">
              <Loader size="sm" />
              <Text size="sm" c="dimmed">
                {t("overlay.waiting", { name })}
              </Text>
            </Group>
          </div>
        );
      if (!view.trunkLost) return null;
      return (
        <div className="pane-strip" role="status" data-testid="terminal-trunk-lost">
          <Loader size={12} />
          <Text size="sm">{t("overlay.trunkLost", { name })}</Text>
        </div>
      );
    case "idle":
    case "authorising":
    case "connecting":
      // The first half second needs no words; a reconnect keeps the ones it had.
      if (view.attempt === 0)
        return (
          <div
            className="overlay overlay-quiet"
            role="status"
            aria-label={t("overlay.connecting", { name })}
          >
            <Loader size="sm" />
          </div>
        );
      return <Reconnecting view={view} name={name} onRetry={onRetry} />;
    case "waiting":
      return <Reconnecting view={view} name={name} onRetry={onRetry} />;
    case "ended":
      return (
        <div
          className="pane-strip"
          role="status"
          data-testid="terminal-exit"
          data-exit-code={view.exit?.code ?? undefined}
        >
          <Text size="sm" fw={600}>
            {endText(t, view)}
          </Text>
          {view.failure?.message && <Text size="sm">{view.failure.message}</Text>}
          <Group gap="xs" ml="auto">
            {view.sessionId && (
              <Button
                size="compact-sm"
                variant="subtle"
                component={Link}
                to={`/recordings?session_id=${view.sessionId}`}
              >
                {t("overlay.recording")}
              </Button>
            )}
            {pane.mode === "own" && (
              <Button size="compact-sm" onClick={onReopen}>
                {t("overlay.reopen")}
              </Button>
            )}
            <Button size="compact-sm" variant="default" onClick={onClose}>
              {t("action.close")}
            </Button>
          </Group>
        </div>
      );
    case "failed":
      return (
        <Failed view={view} pane={pane} onRetry={onRetry} onReopen={onReopen} onClose={onClose} />
      );
  }
}

const endText = (t: ReturnType<typeof useT>, { exit }: View): string => {
  if (exit?.signal) return t("overlay.signal", { signal: exit.signal });
  if (exit?.code !== null && exit?.code !== undefined)
    return t("overlay.exit", { code: exit.code });
  return t("overlay.ended");
};

function Reconnecting({ view, name, onRetry }: { view: View; name: string; onRetry: () => void }) {
  const t = useT();
  const seconds = useCountdown(view.retryAt);
  return (
    <div className="overlay">
      <Paper
        className="overlay-card"
        p="md"
        shadow="md"
        role="status"
        data-testid="terminal-reconnecting"
      >
        <Group gap="sm" wrap="nowrap" align="flex-start">
          <Loader size="sm" mt={2} />
          <div>
            <Text fw={600} size="sm">
              {t(view.sessionId ? "overlay.lost" : "overlay.unreachable")}
            </Text>
            <Text size="sm" c="dimmed">
              {view.sessionId ? t("overlay.lostText", { name }) : t("overlay.unreachableText")}
            </Text>
            {view.pendingInput > 0 && (
              <Text size="xs" c="dimmed" mt={4}>
                {t("overlay.pending", { count: view.pendingInput })}
              </Text>
            )}
            <Group gap="xs" mt="xs">
              <Text size="xs" c="dimmed" className="tabular">
                {seconds === null || seconds === 0
                  ? t("overlay.trying")
                  : t("overlay.retryIn", { seconds })}
              </Text>
              {seconds !== null && seconds > 0 && (
                <Button size="compact-xs" variant="default" onClick={onRetry}>
                  {t("overlay.tryNow")}
                </Button>
              )}
            </Group>
          </div>
        </Group>
      </Paper>
    </div>
  );
}

function Failed({ view, pane, onRetry, onReopen, onClose }: OverlayProps) {
  const t = useT();
  const status = view.failure?.status ?? 0;
  const displaced = view.failure?.code === "displaced";
  const signedOut = status === 401 || status === 4401;
  const gone = view.sessionId !== null && (status === 404 || status === 4404 || status === 4502);
  return (
    <div className="overlay">
      <Paper className="overlay-card" p="md" shadow="md" role="alert" data-testid="terminal-failed">
        <Text fw={600} size="sm">
          {displaced && t("overlay.displaced")}
          {signedOut && t("overlay.signedOut")}
          {!displaced &&
            !signedOut &&
            t(gone ? "overlay.gone" : "overlay.failed", { name: pane.machineName })}
        </Text>
        <Text size="sm" c="dimmed" mt={2}>
          {view.failure?.message || t("overlay.noReason")}
        </Text>
        <Group gap="xs" mt="sm">
          {signedOut ? (
            <Button size="xs" component={Link} to="/sign-in?next=/terminal" reloadDocument>
              {t("signIn.submit")}
            </Button>
          ) : gone && pane.mode === "own" ? (
            <Button size="xs" onClick={onReopen}>
              {t("overlay.newShell")}
            </Button>
          ) : (
            <Button size="xs" onClick={onRetry}>
              {t(displaced ? "overlay.takeBack" : "action.tryAgain")}
            </Button>
          )}
          <Button size="xs" variant="default" onClick={onClose}>
            {t("action.close")}
          </Button>
        </Group>
      </Paper>
    </div>
  );
}

/** Whole seconds until `at` on the engine's clock, counted down; null when nothing is awaited. */
function useCountdown(at: number | null): number | null {
  const [, redraw] = useState(0);
  useEffect(() => {
    if (at === null) return;
    const timer = setInterval(() => redraw((count) => count + 1), 500);
    return () => clearInterval(timer);
  }, [at]);
  return at === null ? null : Math.max(0, Math.ceil((at - performance.now()) / 1000));
}
