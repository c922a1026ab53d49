// A table of sessions: who is where, and for live ones the ways in (watch, join, return) and out.

import {
  Badge,
  Button,
  Group,
  Loader,
  Pagination,
  Table,
  Text,
  Tooltip,
  VisuallyHidden,
} from "@mantine/core";
import { modals } from "@mantine/modals";
import { IconEye, IconTerminal2 } from "@tabler/icons-react";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import type { Session } from "../api/types";
import { useAccount } from "../app/account";
import { EmptyState } from "../app/EmptyState";
import { ErrorState } from "../app/ErrorState";
import { ago, clock, moment } from "../app/format";
import { toastDone } from "../app/toasts";
import { useT } from "../i18n";
import { attempt, useMachineName } from "../machines/queries";
import { useEnterSession } from "../terminal/useOpenTerminal";
import { endSession, isLive, type SessionFilter, useSessions } from "./queries";

const COLOURS = {
  connecting: "blue",
  active: "jade",
  detached: "orange",
  closed: "gray",
  error: "red",
} as const;

export function SessionList({
  filter,
  compact = false,
}: {
  filter: SessionFilter;
  compact?: boolean;
}) {
  const t = useT();
  const [page, setPage] = useState(1);
  const { data, error, refetch } = useSessions({ page_size: 25, ...filter, page });
  if (error) return <ErrorState error={error} onRetry={() => void refetch()} />;
  if (!data) return <Loader size="sm" />;
  if (!data.items.length)
    return compact ? (
      <Text size="sm" c="dimmed">
        {t("sessions.none")}
      </Text>
    ) : (
      <EmptyState
        icon={IconTerminal2}
        title={t("sessions.none")}
        command={`underpass --server ${window.location.origin} shell NAME`}
      >
        {t("sessions.noneText")}
      </EmptyState>
    );
  const pages = Math.ceil(data.total / Math.max(1, data.page_size));
  return (
    <>
      <Table.ScrollContainer minWidth={compact ? 420 : 760}>
        <Table highlightOnHover aria-label={t("sessions.title")}>
          <Table.Thead>
            <Table.Tr>
              {!filter.asset_id && <Table.Th>{t("sessions.machine")}</Table.Th>}
              <Table.Th>{t("sessions.user")}</Table.Th>
              {!compact && <Table.Th>{t("sessions.command")}</Table.Th>}
              <Table.Th>{t("sessions.started")}</Table.Th>
              {!compact && <Table.Th>{t("sessions.duration")}</Table.Th>}
              <Table.Th>{t("sessions.status")}</Table.Th>
              <Table.Th>
                <VisuallyHidden>{t("machines.actions")}</VisuallyHidden>
              </Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {data.items.map((session) => (
              <SessionRow
                key={session.id}
                session={session}
                withMachine={!filter.asset_id}
                compact={compact}
              />
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {pages > 1 && !compact && (
        <Pagination
          total={pages}
          value={page}
          onChange={setPage}
          size="sm"
          mt="md"
          getControlProps={(control) => ({ "aria-label": t(`pages.${control}`) })}
        />
      )}
    </>
  );
}

function SessionRow({
  session,
  withMachine,
  compact,
}: {
  session: Session;
  withMachine: boolean;
  compact: boolean;
}) {
  const t = useT();
  const nameOf = useMachineName();
  const end = session.ended_at ? Date.parse(session.ended_at) : Date.now();
  const begin = Date.parse(session.started_at ?? session.created_at);
  return (
    <Table.Tr data-testid="session" data-session-id={session.id}>
      {withMachine && (
        <Table.Td fw={550}>
          <Link to={`/machines/${session.asset_id}`}>{nameOf(session.asset_id)}</Link>
        </Table.Td>
      )}
      <Table.Td>{session.username}</Table.Td>
      {!compact && (
        <Table.Td>
          <Text size="xs" ff="monospace" truncate maw={260} title={session.command}>
            {session.command}
          </Text>
        </Table.Td>
      )}
      <Table.Td title={moment(session.created_at)}>{ago(session.created_at)}</Table.Td>
      {!compact && <Table.Td className="tabular">{clock((end - begin) / 1000)}</Table.Td>}
      <Table.Td>
        <Group gap={6} wrap="nowrap">
          <Tooltip label={session.error_message ?? t(`session.${session.status}.hint`)}>
            <Badge size="sm" variant="light" color={COLOURS[session.status]} flex="none">
              {outcome(t, session)}
            </Badge>
          </Tooltip>
          {session.observers > 0 && (
            <Badge
              size="sm"
              variant="light"
              color="blue"
              leftSection={<IconEye size={11} aria-hidden />}
            >
              {session.observers}
            </Badge>
          )}
        </Group>
      </Table.Td>
      <Table.Td>
        <SessionActions session={session} />
      </Table.Td>
    </Table.Tr>
  );
}

function outcome(t: ReturnType<typeof useT>, session: Session): string {
  if (session.signal) return session.signal;
  if (session.status === "closed" && session.exit_code !== null)
    return t("session.exit", { code: session.exit_code });
  return t(`session.${session.status}`);
}

function SessionActions({ session }: { session: Session }) {
  const t = useT();
  const account = useAccount();
  const enter = useEnterSession();
  const queries = useQueryClient();
  const name = useMachineName()(session.asset_id);
  const own = session.user_id === account.id;
  const may = account.role !== "user" || own;

  const askToEnd = () =>
    modals.openConfirmModal({
      title: t("sessions.endTitle"),
      children: t("sessions.endText", { user: session.username, machine: name }),
      labels: { confirm: t("sessions.end"), cancel: t("action.cancel") },
      confirmProps: { color: "red" },
      onConfirm: async () => {
        if (await attempt(t("sessions.endFailed"), () => endSession(session.id)))
          toastDone(t("sessions.ended"));
        void queries.invalidateQueries({ queryKey: ["sessions"] });
      },
    });

  if (!isLive(session))
    return (
      <Group gap={4} justify="flex-end" wrap="nowrap">
        {session.recording && (
          <Button
            size="compact-xs"
            variant="subtle"
            component={Link}
            to={`/recordings/${session.recording}`}
          >
            {t("sessions.play")}
          </Button>
        )}
      </Group>
    );
  return (
    <Group gap={4} justify="flex-end" wrap="nowrap">
      {own && (
        <Button size="compact-xs" variant="light" onClick={() => enter(session, name, "own")}>
          {t("sessions.return")}
        </Button>
      )}
      {may && !own && (
        <Button size="compact-xs" variant="light" onClick={() => enter(session, name, "observe")}>
          {t("sessions.watch")}
        </Button>
      )}
      {account.role === "admin" && !own && (
        <Button size="compact-xs" variant="subtle" onClick={() => enter(session, name, "join")}>
          {t("sessions.join")}
        </Button>
      )}
      {(own || account.role === "admin") && (
        <Button size="compact-xs" variant="subtle" color="red" onClick={askToEnd}>
          {t("sessions.end")}
        </Button>
      )}
    </Group>
  );
}
