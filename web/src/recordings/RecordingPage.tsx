// One recording: the player (or the live view), its markers, a search in its text, and its papers.

import {
  Badge,
  Button,
  Grid,
  Group,
  Loader,
  NavLink,
  Paper,
  Text,
  TextInput,
  Title,
} from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { modals } from "@mantine/modals";
import { IconBookmark, IconDownload, IconSearch, IconTrash } from "@tabler/icons-react";
import { useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { useNavigate, useParams, useSearchParams } from "react-router";
import type { Recording } from "../api/types";
import { useIsAdmin } from "../app/account";
import { CopyButton } from "../app/CopyButton";
import { ErrorState } from "../app/ErrorState";
import { bytes, clock, moment } from "../app/format";
import { PageHeader } from "../app/PageHeader";
import { useT } from "../i18n";
import { attempt, useMachineName } from "../machines/queries";
import { LiveView } from "./LiveView";
import { Player, type PlayerHandle } from "./Player";
import {
  castAddress,
  deleteRecording,
  useRecording,
  useRecordingIndex,
  useRecordings,
} from "./queries";

export default function RecordingPage() {
  const t = useT();
  const { id = "" } = useParams();
  const [parameters] = useSearchParams();
  const nameOf = useMachineName();
  const { data: recording, error, refetch } = useRecording(id);
  const player = useRef<PlayerHandle>(null);
  if (error) return <ErrorState error={error} onRetry={() => void refetch()} />;
  if (!recording) return <Loader size="sm" m="xl" />;
  const live = recording.status === "recording";
  const seek = (time: number) => player.current?.seek(time);
  return (
    <>
      <PageHeader
        title={nameOf(recording.asset_id)}
        note={`${recording.username} · ${moment(recording.started_at)}`}
      >
        <Button
          variant="default"
          component="a"
          href={castAddress(id)}
          download={`${id}.cast`}
          leftSection={<IconDownload size={15} aria-hidden />}
        >
          {t("recordings.download")}
        </Button>
        <DeleteButton recording={recording} />
      </PageHeader>
      <Grid gap="md">
        <Grid.Col span={{ base: 12, lg: 9 }}>
          {live ? (
            <LiveView id={id} />
          ) : (
            <Player
              ref={player}
              id={id}
              size={recording.size}
              startAt={Number(parameters.get("t")) || 0}
            />
          )}
        </Grid.Col>
        <Grid.Col span={{ base: 12, lg: 3 }}>
          {!live && <TextHits recording={recording} onSeek={seek} />}
          {!live && <Markers id={id} onSeek={seek} />}
          <Papers recording={recording} />
        </Grid.Col>
      </Grid>
    </>
  );
}

function TextHits({ recording, onSeek }: { recording: Recording; onSeek: (time: number) => void }) {
  const t = useT();
  const [text, setText] = useState("");
  const [wanted] = useDebouncedValue(text.trim(), 250);
  const { data } = useRecordings({ text: wanted || undefined, session_id: recording.session_id });
  const hits = wanted ? (data?.items.find((one) => one.id === recording.id)?.hits ?? []) : [];
  return (
    <Paper p="sm" mb="md">
      <TextInput
        size="xs"
        placeholder={t("recordings.searchHere")}
        aria-label={t("recordings.searchHere")}
        leftSection={<IconSearch size={13} aria-hidden />}
        value={text}
        onChange={(event) => setText(event.currentTarget.value)}
      />
      <div className="hit-list">
        {hits.map((hit) => (
          <NavLink
            key={`${hit.time} ${hit.line}`}
            component="button"
            py={4}
            label={hit.line}
            description={clock(hit.time)}
            onClick={() => onSeek(hit.time)}
            className="hit"
          />
        ))}
      </div>
      {wanted && data && !hits.length && (
        <Text size="xs" c="dimmed" mt="xs" role="status">
          {t("terminal.noHits")}
        </Text>
      )}
    </Paper>
  );
}

function Markers({ id, onSeek }: { id: string; onSeek: (time: number) => void }) {
  const t = useT();
  const { data } = useRecordingIndex(id);
  if (!data?.markers?.length) return null;
  return (
    <Paper p="sm" mb="md">
      <Title order={3} mb={4}>
        {t("player.markers")}
      </Title>
      {data.markers.map((marker) => (
        <NavLink
          key={`${marker.time} ${marker.label}`}
          component="button"
          py={4}
          leftSection={<IconBookmark size={13} aria-hidden />}
          label={marker.label}
          description={clock(marker.time)}
          onClick={() => onSeek(marker.time)}
        />
      ))}
    </Paper>
  );
}

function Papers({ recording }: { recording: Recording }) {
  const t = useT();
  return (
    <Paper p="sm">
      <Group justify="space-between">
        <Text size="sm">{t("recordings.length")}</Text>
        <Text size="sm" className="tabular">
          {clock(recording.duration)}
        </Text>
      </Group>
      <Group justify="space-between">
        <Text size="sm">{t("recordings.size")}</Text>
        <Text size="sm" className="tabular">
          {bytes(recording.size)}
        </Text>
      </Group>
      <Group justify="space-between">
        <Text size="sm">{t("sessions.status")}</Text>
        <Badge size="sm" variant="light" color="gray" tt="none">
          {t(`recording.${recording.status}`)}
        </Badge>
      </Group>
      {recording.sha256 && (
        <Group justify="space-between" wrap="nowrap">
          <Text size="sm">SHA-256</Text>
          <Group gap={2} wrap="nowrap">
            <Text size="xs" ff="monospace" title={recording.sha256}>
              {recording.sha256.slice(0, 12)}…
            </Text>
            <CopyButton text={recording.sha256} label={t("recordings.copyHash")} />
          </Group>
        </Group>
      )}
    </Paper>
  );
}

function DeleteButton({ recording }: { recording: Recording }) {
  const t = useT();
  const admin = useIsAdmin();
  const queries = useQueryClient();
  const navigate = useNavigate();
  if (!admin || recording.status === "recording") return null;
  const ask = () =>
    modals.openConfirmModal({
      title: t("recordings.deleteTitle"),
      children: t("recordings.deleteText"),
      labels: { confirm: t("recordings.delete"), cancel: t("action.cancel") },
      confirmProps: { color: "red" },
      onConfirm: async () => {
        if (!(await attempt(t("recordings.deleteFailed"), () => deleteRecording(recording.id))))
          return;
        navigate("/recordings", { replace: true });
        void queries.invalidateQueries({ queryKey: ["recordings"] });
      },
    });
  return (
    <Button
      variant="light"
      color="red"
      leftSection={<IconTrash size={15} aria-hidden />}
      onClick={ask}
    >
      {t("recordings.delete")}
    </Button>
  );
}
