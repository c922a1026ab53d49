// What an admin may change about a machine: its name, labels, who may use it, maintenance, its end.

import {
  Alert,
  Button,
  Divider,
  Group,
  Modal,
  MultiSelect,
  Stack,
  Switch,
  TagsInput,
  TextInput,
} from "@mantine/core";
import { modals } from "@mantine/modals";
import { useState } from "react";
import { useNavigate } from "react-router";
import { useUsers } from "../access/queries";
import type { Machine } from "../api/types";
import { toastDone } from "../app/toasts";
import { useT } from "../i18n";
import { labelsToText, textToLabels } from "./machine";
import { attempt, type MachineChange, useMachineWrites } from "./queries";

export function EditMachine({ machine, onClose }: { machine: Machine; onClose: () => void }) {
  const t = useT();
  const navigate = useNavigate();
  const writes = useMachineWrites();
  const users = useUsers();
  const [name, setName] = useState(machine.name);
  const [labels, setLabels] = useState(labelsToText(machine.labels));
  const [allowed, setAllowed] = useState(machine.allowed_users);
  const [maintenance, setMaintenance] = useState(machine.status === "maintenance");
  const [declares, setDeclares] = useState(machine.may_declare);
  const [busy, setBusy] = useState(false);
  const parsed = textToLabels(labels);

  const save = async () => {
    if (!parsed) return;
    const change: MachineChange = { name: name.trim(), labels: parsed, allowed_users: allowed };
    // The status is the agent's to report; only maintenance is a person's decision.
    if (maintenance !== (machine.status === "maintenance"))
      change.status = maintenance ? "maintenance" : "online";
    // Said only when it changes: who says it may become the owner of what the machine declares.
    if (declares !== machine.may_declare) change.may_declare = declares;
    setBusy(true);
    const done = await attempt(t("machines.editFailed"), () => writes.change(machine.id, change));
    setBusy(false);
    if (!done) return;
    toastDone(t("action.saved"));
    onClose();
  };

  const askToRemove = () =>
    modals.openConfirmModal({
      title: t("machines.removeTitle", { name: machine.name }),
      children: t("machines.removeText"),
      labels: { confirm: t("machines.remove"), cancel: t("action.cancel") },
      confirmProps: { color: "red" },
      onConfirm: async () => {
        if (!(await attempt(t("machines.removeFailed"), () => writes.remove(machine.id)))) return;
        toastDone(t("machines.removed", { name: machine.name }));
        navigate("/machines", { replace: true });
      },
    });

  return (
    <Modal
      opened
      onClose={onClose}
      title={t("machines.editTitle", { name: machine.name })}
      closeButtonProps={{ "aria-label": t("action.close") }}
    >
      <Stack gap="sm">
        <TextInput
          label={t("machines.name")}
          value={name}
          maxLength={64}
          data-autofocus
          onChange={(event) => setName(event.currentTarget.value)}
        />
        <TagsInput
          label={t("machines.labels")}
          description={t("labels.hint")}
          placeholder="env=prod"
          value={labels}
          onChange={setLabels}
          error={parsed ? null : t("labels.wrong")}
        />
        <MultiSelect
          label={t("machines.allowed")}
          description={t("machines.allowedHint")}
          searchable
          data={(users.data ?? []).map((user) => ({ value: user.id, label: user.username }))}
          value={allowed}
          onChange={setAllowed}
        />
        <Switch
          label={t("machines.maintenance")}
          description={t("status.maintenance.hint")}
          checked={maintenance}
          onChange={(event) => setMaintenance(event.currentTarget.checked)}
        />
        <Switch
          label={t("machines.mayDeclare")}
          description={t("machines.mayDeclareHint")}
          checked={declares}
          onChange={(event) => setDeclares(event.currentTarget.checked)}
        />
        {machine.may_declare && !declares && (
          <Alert color="orange" variant="light" py="xs" role="status">
            {t("machines.declareEnds")}
          </Alert>
        )}
        <Divider my={4} />
        <Group justify="space-between">
          <Button variant="subtle" color="red" onClick={askToRemove}>
            {t("machines.remove")}
          </Button>
          <Group gap="xs">
            <Button variant="default" onClick={onClose}>
              {t("action.cancel")}
            </Button>
            <Button onClick={() => void save()} loading={busy} disabled={!parsed || !name.trim()}>
              {t("action.save")}
            </Button>
          </Group>
        </Group>
      </Stack>
    </Modal>
  );
}
