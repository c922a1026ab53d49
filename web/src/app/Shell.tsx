// The frame around every page: navigation, palette, live feed, and the terminals, which stay mounted
// while other pages are looked at.

import { AppShell, Box, Burger, Group, Loader, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useEffect } from "react";
import { Navigate, Outlet, useLocation } from "react-router";
import { useT } from "../i18n";
import { useLayout } from "../terminal/layout-store";
import { forgetAccount, useMe } from "./account";
import { Crash } from "./Crash";
import { ErrorState } from "./ErrorState";
import { useLiveConnected, useLiveFeed } from "./live";
import { Navigation } from "./Navigation";
import { Palette } from "./Palette";

const loadTerminals = () => import("../terminal/Terminals");
const Terminals = lazy(loadTerminals);

export function Shell() {
  const { data: user, isPending, error, refetch } = useMe();
  const location = useLocation();
  if (isPending)
    return (
      <Box className="centred-page">
        <Loader aria-label="…" />
      </Box>
    );
  if (error)
    return (
      <Box className="centred-page">
        <ErrorState error={error} onRetry={() => void refetch()} />
      </Box>
    );
  if (!user) {
    const next = location.pathname + location.search;
    return (
      <Navigate
        to={next === "/" ? "/sign-in" : `/sign-in?next=${encodeURIComponent(next)}`}
        replace
      />
    );
  }
  return <SignedInShell />;
}

function SignedInShell() {
  const t = useT();
  const [opened, { toggle, close }] = useDisclosure(false);
  const { pathname } = useLocation();
  const layout = useLayout();
  const onTerminal = pathname === "/terminal";
  const wanted = onTerminal || layout.tabs.length > 0;
  useLiveFeed();
  useSignedOutElsewhere();
  useEffect(() => {
    // Fetched once the page is quiet, so that the first click on Terminal does not wait for it.
    const timer = setTimeout(() => void loadTerminals().catch(() => undefined), 1200);
    return () => clearTimeout(timer);
  }, []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new page closes the phone's menu
  useEffect(close, [pathname]);

  return (
    <AppShell
      header={{ height: 48, collapsed: false }}
      navbar={{ width: 212, breakpoint: "sm", collapsed: { mobile: !opened } }}
      className="shell"
    >
      <a href="#main" className="skip-link">
        {t("nav.skip")}
      </a>
      <AppShell.Header hiddenFrom="sm">
        <Group h="100%" px="sm" gap="sm">
          <Burger opened={opened} onClick={toggle} size="sm" aria-label={t("nav.menu")} />
          <Text fw={650}>Underpass</Text>
        </Group>
      </AppShell.Header>
      <Navigation />
      <AppShell.Main id="main" tabIndex={-1}>
        <LiveNotice />
        {wanted && (
          <Box className="terminals-frame" data-hidden={!onTerminal || undefined}>
            <Crash>
              <Suspense fallback={<PageLoader />}>
                <Terminals visible={onTerminal} />
              </Suspense>
            </Crash>
          </Box>
        )}
        {!onTerminal && (
          <Box className="page">
            <Crash key={pathname}>
              <Suspense fallback={<PageLoader />}>
                <Outlet />
              </Suspense>
            </Crash>
          </Box>
        )}
      </AppShell.Main>
      <Palette />
    </AppShell>
  );
}

const PageLoader = () => (
  <Group justify="center" pt="xl">
    <Loader size="sm" aria-label="…" />
  </Group>
);

/** Says that what is on screen may be old; the terminals have their own, better, word on this. */
function LiveNotice() {
  const t = useT();
  if (useLiveConnected()) return null;
  return (
    <Text role="status" className="live-notice" size="xs">
      {t("live.interrupted")}
    </Text>
  );
}

/** Another tab signed out: this one must not go on showing what its person may no longer see. */
function useSignedOutElsewhere() {
  const queries = useQueryClient();
  useEffect(() => {
    const channel = new BroadcastChannel("underpass.account");
    channel.onmessage = () => forgetAccount(queries);
    return () => channel.close();
  }, [queries]);
}
