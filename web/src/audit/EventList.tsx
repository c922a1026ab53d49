// Audit events, newest first; each opens to its details.

import { Badge, Code, Loader, Pagination, Table, Text, UnstyledButton } from "@mantine/core";
import { IconShieldCheck } from "@tabler/icons-react";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { Fragment, useState } from "react";
import { get } from "../api/client";
import type { AuditEvent, Page } from "../api/types";
import { EmptyState } from "../app/EmptyState";
import { ErrorState } from "../app/ErrorState";
import { ago, moment } from "../app/format";
import { useT } from "../i18n";
import { useMachineName } from "../machines/queries";
import { Person } from "../offers/Person";

export interface EventFilter {
  type?: string;
  actor?: string;
  agent?: string;
  outcome?: string;
  q?: string;
  from?: string;
  to?: string;
  page_size?: number;
}

const COLOURS = { ok: "gray", denied: "orange", failed: "red" } as const;

export const useEvents = (filter: EventFilter & { page?: number }) =>
  useQuery({
    queryKey: ["events", filter],
    queryFn: ({ signal }) =>
      get<Page<AuditEvent>>("/api/v1/events", { query: { ...filter }, signal }),
    placeholderData: keepPreviousData,
  });

export function EventList({ filter, compact = false }: { filter: EventFilter; compact?: boolean }) {
  const t = useT();
  const [page, setPage] = useState(1);
  const { data, error, refetch } = useEvents({ page_size: 50, ...filter, page });
  if (error) return <ErrorState error={error} onRetry={() => void refetch()} />;
  if (!data) return <Loader size="sm" />;
  if (!data.items.length)
    return compact ? (
      <Text size="sm" c="dimmed">
        {t("events.none")}
      </Text>
    ) : (
      <EmptyState icon={IconShieldCheck} title={t("events.none")}>
        {t("events.noneText")}
      </EmptyState>
    );
  const pages = Math.ceil(data.total / Math.max(1, data.page_size));
  return (
    <>
      <Table.ScrollContainer minWidth={compact ? 280 : 720}>
        <Table highlightOnHover aria-label={t("events.title")}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>{t("events.time")}</Table.Th>
              <Table.Th>{t("events.type")}</Table.Th>
              <Table.Th>{t("events.actor")}</Table.Th>
              {!compact && <Table.Th>{t("sessions.machine")}</Table.Th>}
              {!compact && <Table.Th>{t("events.ip")}</Table.Th>}
              {!compact && <Table.Th>{t("events.outcome")}</Table.Th>}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {data.items.map((event) => (
              <EventRow key={event.id} event={event} compact={compact} />
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

function EventRow({ event, compact }: { event: AuditEvent; compact: boolean }) {
  const t = useT();
  const nameOf = useMachineName();
  const [open, setOpen] = useState(false);
  return (
    <Fragment>
      <Table.Tr>
        <Table.Td title={moment(event.time)} className="tabular">
          {compact ? ago(event.time) : moment(event.time)}
        </Table.Td>
        <Table.Td>
          <UnstyledButton
            className="event-type"
            aria-expanded={open}
            onClick={() => setOpen(!open)}
          >
            {event.type}
          </UnstyledButton>
          {/* Where room is scarce only what went wrong is worth a mark. */}
          {compact && event.outcome !== "ok" && <Outcome event={event} compact />}
        </Table.Td>
        <Table.Td>{event.actor ? <Person name={event.actor} /> : t("events.system")}</Table.Td>
        {!compact && <Table.Td>{event.agent_id ? nameOf(event.agent_id) : "–"}</Table.Td>}
        {!compact && <Table.Td className="tabular">{event.ip ?? "–"}</Table.Td>}
        {!compact && (
          <Table.Td>
            <Outcome event={event} />
          </Table.Td>
        )}
      </Table.Tr>
      {open && (
        <Table.Tr>
          <Table.Td colSpan={6}>
            <Code block fz="xs">
              {JSON.stringify(
                { rule: event.rule, object_id: event.object_id, ...event.details },
                null,
                2,
              )}
            </Code>
          </Table.Td>
        </Table.Tr>
      )}
    </Fragment>
  );
}

function Outcome({ event, compact = false }: { event: AuditEvent; compact?: boolean }) {
  const t = useT();
  return (
    <Badge size="sm" variant="light" color={COLOURS[event.outcome]} ml={compact ? 6 : 0}>
      {t(`outcome.${event.outcome}`)}
    </Badge>
  );
}
