// The providers and the routes. Pages with heavy parts (terminal, player, charts) are fetched when
// first opened, so that signing in stays light.

import { MantineProvider } from "@mantine/core";
import { ModalsProvider } from "@mantine/modals";
import { Notifications } from "@mantine/notifications";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { lazy } from "react";
import { BrowserRouter, Route, Routes } from "react-router";
import { SettingsPage } from "../access/SettingsPage";
import { ApiError } from "../api/client";
import { AuditPage } from "../audit/AuditPage";
import { useT } from "../i18n";
import { MachinesPage } from "../machines/MachinesPage";
import { RecordingsPage } from "../recordings/RecordingsPage";
import { SessionsPage } from "../sessions/SessionsPage";
import { NotFoundPage } from "./NotFoundPage";
import { OverviewPage } from "./OverviewPage";
import { SetupPage } from "./SetupPage";
import { Shell } from "./Shell";
import { SignInPage } from "./SignInPage";
import { colorSchemeManager, cssVariables, theme } from "./theme";

const MachinePage = lazy(() => import("../machines/MachinePage"));
const MappingPage = lazy(() => import("../tunnels/MappingPage"));
const OffersPage = lazy(() => import("../offers/OffersPage"));
const RecordingPage = lazy(() => import("../recordings/RecordingPage"));
const TunnelsPage = lazy(() => import("../tunnels/TunnelsPage"));

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 30_000,
      refetchOnWindowFocus: false, // the live feed tells; see live.ts
      retry: (failures, error) =>
        failures < 2 && (!(error instanceof ApiError) || error.status === 0 || error.status >= 500),
    },
  },
});

const manager = colorSchemeManager();

export function App() {
  const t = useT();
  return (
    <MantineProvider
      theme={theme}
      cssVariablesResolver={cssVariables}
      defaultColorScheme="auto"
      colorSchemeManager={manager}
    >
      <QueryClientProvider client={queries}>
        <ModalsProvider
          labels={{ confirm: t("action.confirm"), cancel: t("action.cancel") }}
          modalProps={{ closeButtonProps: { "aria-label": t("action.close") } }}
        >
          <Notifications position="bottom-right" limit={4} />
          <BrowserRouter>
            <Routes>
              <Route path="/setup" element={<SetupPage />} />
              <Route path="/sign-in" element={<SignInPage />} />
              <Route element={<Shell />}>
                <Route index element={<OverviewPage />} />
                <Route path="/machines" element={<MachinesPage />} />
                <Route path="/machines/:id" element={<MachinePage />} />
                {/* The terminal lives in the shell, so that it survives a look at another page. */}
                <Route path="/terminal" element={null} />
                <Route path="/sessions" element={<SessionsPage />} />
                <Route path="/recordings" element={<RecordingsPage />} />
                <Route path="/recordings/:id" element={<RecordingPage />} />
                <Route path="/tunnels" element={<TunnelsPage />} />
                <Route path="/tunnels/:id" element={<MappingPage />} />
                <Route path="/offers" element={<OffersPage />} />
                <Route path="/audit" element={<AuditPage />} />
                <Route path="/settings" element={<SettingsPage />} />
                <Route path="*" element={<NotFoundPage />} />
              </Route>
            </Routes>
          </BrowserRouter>
        </ModalsProvider>
      </QueryClientProvider>
    </MantineProvider>
  );
}
