// The first look: what needs a decision, what is online, who is working where, what happened last.

import { Anchor, Grid, Group, Paper, Text, Title } from "@mantine/core";
import { IconDeviceDesktop } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { Link } from "react-router";
import { EventList } from "../audit/EventList";
import { useT } from "../i18n";
import { PendingEnrolments } from "../machines/PendingEnrolments";
import { useMachines } from "../machines/queries";
import { useRecordings } from "../recordings/queries";
import { useSessions } from "../sessions/queries";
import { SessionList } from "../sessions/SessionList";
import { useAccount } from "./account";
import { EmptyState } from "./EmptyState";
import { PageHeader } from "./PageHeader";

const LIVE = "active,detached,connecting";

export function OverviewPage() {
  const t = useT();
  const { role } = useAccount();
  const { data: machines } = useMachines();
  const live = useSessions({ status: LIVE, page_size: 5, page: 1 });
  const recordings = useRecordings({});
  const count = (status: string) =>
    machines?.filter((machine) => machine.status === status).length ?? 0;
  const attention = count("degraded") + count("offline");
  return (
    <>
      <PageHeader title={t("nav.overview")} />
      <PendingEnrolments />
      <Grid gap="md">
        <Figure
          to="/machines"
          label={t("overview.online")}
          value={machines && count("online")}
          note={machines && t("overview.of", { total: machines.length })}
        />
        <Figure
          to="/sessions"
          label={t("overview.sessions")}
          value={live.data?.total}
          note={t("overview.now")}
        />
        <Figure
          to="/machines"
          label={t("overview.attention")}
          value={machines && attention}
          note={t("overview.attentionNote")}
          tone={attention ? "warn" : undefined}
        />
        <Figure
          to="/recordings"
          label={t("overview.recordings")}
          value={recordings.data?.total}
          note={t("overview.kept")}
        />
        {machines?.length === 0 && (
          <Grid.Col span={12}>
            <Paper>
              <EmptyState
                icon={IconDeviceDesktop}
                title={t("machines.emptyTitle")}
                command={`underpass agent --server ${window.location.origin}`}
              >
                {t(role === "admin" ? "machines.emptyAdmin" : "machines.emptyUser")}
              </EmptyState>
            </Paper>
          </Grid.Col>
        )}
        <Grid.Col span={{ base: 12, lg: role === "user" ? 12 : 7 }}>
          <Panel title={t("overview.live")} to="/sessions">
            <SessionList filter={{ status: LIVE, page_size: 5 }} compact />
          </Panel>
        </Grid.Col>
        {role !== "user" && (
          <Grid.Col span={{ base: 12, lg: 5 }}>
            <Panel title={t("overview.events")} to="/audit">
              <EventList filter={{ page_size: 8 }} compact />
            </Panel>
          </Grid.Col>
        )}
      </Grid>
    </>
  );
}

function Figure({
  to,
  label,
  value,
  note,
  tone,
}: {
  to: string;
  label: string;
  value: number | undefined;
  note?: string;
  tone?: "warn";
}) {
  return (
    <Grid.Col span={{ base: 6, md: 3 }}>
      <Paper component={Link} to={to} p="md" className="figure" data-tone={tone}>
        <Text size="sm" c="dimmed">
          {label}
        </Text>
        <Group gap={8} align="baseline">
          <Text className="figure-value tabular">{value ?? "–"}</Text>
          <Text size="xs" c="dimmed">
            {note}
          </Text>
        </Group>
      </Paper>
    </Grid.Col>
  );
}

function Panel({ title, to, children }: { title: string; to: string; children: ReactNode }) {
  const t = useT();
  return (
    <Paper p="md" h="100%" component="section">
      <Group justify="space-between" mb="xs">
        <Title order={2}>{title}</Title>
        <Anchor component={Link} to={to} size="xs" aria-label={`${t("overview.all")}: ${title}`}>
          {t("overview.all")}
        </Anchor>
      </Group>
      {children}
    </Paper>
  );
}
