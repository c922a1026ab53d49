// Tokens for scripts and the command line; each is shown once, when it is made.

import {
  Alert,
  Button,
  Group,
  Modal,
  Paper,
  Select,
  Stack,
  Table,
  Text,
  TextInput,
  Title,
  VisuallyHidden,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { modals } from "@mantine/modals";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import type { ApiKey } from "../api/types";
import { Command } from "../app/EmptyState";
import { ago, moment } from "../app/format";
import { useT } from "../i18n";
import { attempt } from "../machines/queries";
import { createApiKey, revokeApiKey, useApiKeys } from "./queries";

const DAY = 86_400;

export function ApiKeys() {
  const t = useT();
  const queries = useQueryClient();
  const { data } = useApiKeys();
  const [making, make] = useDisclosure(false);
  const revoke = (key: ApiKey) =>
    modals.openConfirmModal({
      title: t("keys.revokeTitle", { name: key.name }),
      children: t("keys.revokeText"),
      labels: { confirm: t("keys.revoke"), cancel: t("action.cancel") },
      confirmProps: { color: "red" },
      onConfirm: async () => {
        await attempt(t("keys.revokeFailed"), () => revokeApiKey(key.id));
        void queries.invalidateQueries({ queryKey: ["api-keys"] });
      },
    });
  return (
    <Paper p="md" component="section" aria-labelledby="keys-title">
      <Group justify="space-between" mb="xs">
        <Title order={2} id="keys-title">
          {t("keys.title")}
        </Title>
        <Button size="xs" variant="default" onClick={make.open}>
          {t("keys.create")}
        </Button>
      </Group>
      {data && !data.length && (
        <Stack gap="xs" align="flex-start">
          <Text size="sm" c="dimmed">
            {t("keys.none")}
          </Text>
          <Command
            text={`UNDERPASS_SERVER=${window.location.origin} UNDERPASS_TOKEN=upt_… underpass machines`}
          />
        </Stack>
      )}
      {data && data.length > 0 && (
        <Table.ScrollContainer minWidth={420}>
          <Table aria-label={t("keys.title")}>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>{t("keys.name")}</Table.Th>
                <Table.Th>{t("keys.used")}</Table.Th>
                <Table.Th>{t("keys.expires")}</Table.Th>
                <Table.Th>
                  <VisuallyHidden>{t("machines.actions")}</VisuallyHidden>
                </Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {data.map((key) => (
                <Table.Tr key={key.id}>
                  <Table.Td fw={550}>{key.name}</Table.Td>
                  <Table.Td title={moment(key.last_used_at)}>
                    {key.last_used_at ? ago(key.last_used_at) : t("keys.never")}
                  </Table.Td>
                  <Table.Td>{key.expires_at ? moment(key.expires_at) : t("keys.never")}</Table.Td>
                  <Table.Td ta="right">
                    <Button
                      size="compact-xs"
                      variant="subtle"
                      color="red"
                      onClick={() => revoke(key)}
                    >
                      {t("keys.revoke")}
                    </Button>
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      <Modal
        opened={making}
        onClose={make.close}
        title={t("keys.create")}
        closeButtonProps={{ "aria-label": t("action.close") }}
      >
        {making && <KeyForm onDone={make.close} />}
      </Modal>
    </Paper>
  );
}

function KeyForm({ onDone }: { onDone: () => void }) {
  const t = useT();
  const queries = useQueryClient();
  const [name, setName] = useState("");
  const [lifetime, setLifetime] = useState<string | null>(String(90 * DAY));
  const [made, setMade] = useState<ApiKey | null>(null);
  const [busy, setBusy] = useState(false);
  const create = async () => {
    setBusy(true);
    await attempt(t("keys.failed"), async () =>
      setMade(
        await createApiKey({
          name: name.trim(),
          ...(Number(lifetime) ? { expires_in: Number(lifetime) } : {}),
        }),
      ),
    );
    setBusy(false);
    void queries.invalidateQueries({ queryKey: ["api-keys"] });
  };
  if (made?.token)
    return (
      <Stack gap="sm">
        <Command text={made.token} />
        <Alert variant="light" color="gray" py="xs">
          {t("keys.once")}
        </Alert>
        <Group justify="flex-end">
          <Button onClick={onDone}>{t("action.done")}</Button>
        </Group>
      </Stack>
    );
  return (
    <Stack gap="sm">
      <TextInput
        label={t("keys.name")}
        placeholder={t("keys.nameHint")}
        data-autofocus
        maxLength={64}
        value={name}
        onChange={(event) => setName(event.currentTarget.value)}
      />
      <Select
        label={t("keys.expires")}
        allowDeselect={false}
        value={lifetime}
        onChange={setLifetime}
        data={[
          { value: String(30 * DAY), label: t("keys.days", { count: 30 }) },
          { value: String(90 * DAY), label: t("keys.days", { count: 90 }) },
          { value: String(365 * DAY), label: t("keys.days", { count: 365 }) },
          { value: "0", label: t("keys.never") },
        ]}
      />
      <Group justify="flex-end">
        <Button onClick={() => void create()} loading={busy} disabled={!name.trim()}>
          {t("keys.create")}
        </Button>
      </Group>
    </Stack>
  );
}
