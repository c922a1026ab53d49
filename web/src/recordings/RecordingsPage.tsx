// The list of recordings, with a search in what was on their screens; a hit leads to its moment.

import {
  Badge,
  CloseButton,
  Group,
  Loader,
  Pagination,
  Table,
  Text,
  TextInput,
} from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { IconPlayerPlay, IconSearch } from "@tabler/icons-react";
import { Fragment, useState } from "react";
import { Link, useSearchParams } from "react-router";
import type { Recording } from "../api/types";
import { EmptyState } from "../app/EmptyState";
import { ErrorState } from "../app/ErrorState";
import { ago, bytes, clock, moment } from "../app/format";
import { PageHeader } from "../app/PageHeader";
import { useT } from "../i18n";
import { useMachineName } from "../machines/queries";
import { useRecordings } from "./queries";

const HITS_SHOWN = 3;

export function RecordingsPage() {
  const t = useT();
  const [parameters] = useSearchParams();
  const [text, setText] = useState("");
  const [wanted] = useDebouncedValue(text.trim(), 250);
  const [page, setPage] = useState(1);
  const filter = {
    text: wanted || undefined,
    asset_id: parameters.get("asset_id") ?? undefined,
    session_id: parameters.get("session_id") ?? undefined,
    page,
  };
  const { data, error, refetch, isPlaceholderData } = useRecordings(filter);
  const pages = data ? Math.ceil(data.total / Math.max(1, data.page_size)) : 0;
  return (
    <>
      <PageHeader
        title={t("recordings.title")}
        note={data && t("recordings.count", { total: data.total })}
      />
      <TextInput
        className="filter"
        mb="sm"
        placeholder={t("recordings.search")}
        aria-label={t("recordings.search")}
        leftSection={
          isPlaceholderData ? <Loader size={13} /> : <IconSearch size={15} aria-hidden />
        }
        rightSection={
          text && (
            <CloseButton size="sm" aria-label={t("action.clear")} onClick={() => setText("")} />
          )
        }
        value={text}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setPage(1);
        }}
      />
      {error && <ErrorState error={error} onRetry={() => void refetch()} />}
      {!data && !error && <Loader size="sm" />}
      {data && !data.items.length && (
        <EmptyState
          icon={IconPlayerPlay}
          title={t(wanted ? "recordings.noHits" : "recordings.none")}
          command={
            wanted ? undefined : `underpass --server ${window.location.origin} recordings list`
          }
        >
          {t(wanted ? "recordings.noHitsText" : "recordings.noneText")}
        </EmptyState>
      )}
      {data && data.items.length > 0 && (
        <Table.ScrollContainer minWidth={680}>
          <Table highlightOnHover aria-label={t("recordings.title")}>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>{t("sessions.machine")}</Table.Th>
                <Table.Th>{t("sessions.user")}</Table.Th>
                <Table.Th>{t("sessions.started")}</Table.Th>
                <Table.Th>{t("recordings.length")}</Table.Th>
                <Table.Th>{t("recordings.size")}</Table.Th>
                <Table.Th>{t("sessions.status")}</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {data.items.map((recording) => (
                <Row key={recording.id} recording={recording} />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      {pages > 1 && (
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

const COLOURS = { recording: "red", finished: "gray", interrupted: "orange" } as const;

function Row({ recording }: { recording: Recording }) {
  const t = useT();
  const name = useMachineName()(recording.asset_id);
  return (
    <Fragment>
      <Table.Tr data-testid="recording" data-recording-id={recording.id}>
        <Table.Td fw={550}>
          <Link
            to={`/recordings/${recording.id}`}
            aria-label={t("recordings.playName", { name, time: moment(recording.started_at) })}
          >
            {name}
          </Link>
          {recording.title && (
            <Text size="xs" c="dimmed" truncate maw={320}>
              {recording.title}
            </Text>
          )}
        </Table.Td>
        <Table.Td>{recording.username}</Table.Td>
        <Table.Td title={moment(recording.started_at)}>{ago(recording.started_at)}</Table.Td>
        <Table.Td className="tabular">{clock(recording.duration)}</Table.Td>
        <Table.Td className="tabular">{bytes(recording.size)}</Table.Td>
        <Table.Td>
          <Badge size="sm" variant="light" color={COLOURS[recording.status]} tt="none">
            {t(`recording.${recording.status}`)}
          </Badge>
        </Table.Td>
      </Table.Tr>
      {recording.hits && recording.hits.length > 0 && (
        <Table.Tr className="hits">
          <Table.Td colSpan={6}>
            {recording.hits.slice(0, HITS_SHOWN).map((hit) => (
              <Group key={`${hit.time} ${hit.line}`} gap="sm" wrap="nowrap">
                <Link to={`/recordings/${recording.id}?t=${hit.time}`} className="tabular">
                  {clock(hit.time)}
                </Link>
                {/* Off a screen: text and nothing else. */}
                <Text size="xs" ff="monospace" truncate>
                  {hit.line}
                </Text>
              </Group>
            ))}
            {recording.hits.length > HITS_SHOWN && (
              <Text size="xs" c="dimmed">
                {t("recordings.moreHits", { count: recording.hits.length - HITS_SHOWN })}
              </Text>
            )}
          </Table.Td>
        </Table.Tr>
      )}
    </Fragment>
  );
}
