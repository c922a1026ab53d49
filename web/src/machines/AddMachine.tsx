// "Add a machine": makes a join token and shows the one command to type on that machine.

import {
  Alert,
  Button,
  Group,
  Modal,
  NumberInput,
  Select,
  Stack,
  Switch,
  TagsInput,
  Text,
} from "@mantine/core";
import { IconClock } from "@tabler/icons-react";
import { useState } from "react";
import type { JoinToken } from "../api/types";
import { Command } from "../app/EmptyState";
import { useT } from "../i18n";
import { textToLabels } from "./machine";
import { attempt, useMachineWrites } from "./queries";

const HOUR = 3600;

export function AddMachine({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const t = useT();
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      title={t("join.title")}
      size="lg"
      closeButtonProps={{ "aria-label": t("action.close") }}
    >
      {/* Unmounted when closed: the secret is shown once and kept nowhere. */}
      {opened && <JoinForm onDone={onClose} />}
    </Modal>
  );
}

function JoinForm({ onDone }: { onDone: () => void }) {
  const t = useT();
  const writes = useMachineWrites();
  const [uses, setUses] = useState<number | string>(1);
  const [lifetime, setLifetime] = useState(String(HOUR));
  const [labels, setLabels] = useState<string[]>([]);
  const [declares, setDeclares] = useState(false);
  const [token, setToken] = useState<JoinToken | null>(null);
  const [busy, setBusy] = useState(false);
  const parsed = textToLabels(labels);

  const create = async () => {
    if (!parsed) return;
    setBusy(true);
    await attempt(t("join.failed"), async () =>
      setToken(
        await writes.createJoinToken({
          uses: Number(uses) || 1,
          expires_in: Number(lifetime),
          labels: parsed,
          may_declare: declares,
        }),
      ),
    );
    setBusy(false);
  };

  if (token)
    return (
      <Stack gap="sm">
        <Text size="sm">{t("join.run")}</Text>
        <Command
          text={
            token.join_command ?? `underpass agent --join ${window.location.origin} ${token.token}`
          }
        />
        <Alert variant="light" color="gray" icon={<IconClock size={16} />} py="xs">
          {t("join.once")}
        </Alert>
        <Group justify="flex-end">
          <Button onClick={onDone}>{t("action.done")}</Button>
        </Group>
      </Stack>
    );
  return (
    <Stack gap="sm">
      <Text size="sm" c="dimmed">
        {t("join.lead")}
      </Text>
      <Group grow align="flex-start">
        <NumberInput
          label={t("join.uses")}
          min={1}
          max={1000}
          value={uses}
          onChange={setUses}
          allowDecimal={false}
        />
        <Select
          label={t("join.expires")}
          allowDeselect={false}
          value={lifetime}
          onChange={(value) => value && setLifetime(value)}
          data={[
            { value: String(HOUR), label: t("join.hour") },
            { value: String(24 * HOUR), label: t("join.day") },
            { value: String(7 * 24 * HOUR), label: t("join.week") },
          ]}
        />
      </Group>
      <TagsInput
        label={t("machines.labels")}
        placeholder="env=prod"
        value={labels}
        onChange={setLabels}
        error={parsed ? null : t("labels.wrong")}
      />
      <Switch
        label={t("join.mayDeclare")}
        description={t("join.mayDeclareHint")}
        checked={declares}
        onChange={(event) => setDeclares(event.currentTarget.checked)}
      />
      <Group justify="flex-end" mt="xs">
        <Button onClick={() => void create()} loading={busy} disabled={!parsed}>
          {t("join.create")}
        </Button>
      </Group>
    </Stack>
  );
}
