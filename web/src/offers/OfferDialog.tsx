// Lends a port: asks for the target, then shows the code, which is told nowhere else.

import {
  Alert,
  Button,
  Group,
  Modal,
  NumberInput,
  SegmentedControl,
  Select,
  Stack,
  TextInput,
} from "@mantine/core";
import { type FormEvent, useState } from "react";
import { ApiError, explain } from "../api/client";
import type { OfferMade } from "../api/types";
import { duration } from "../app/format";
import { useT } from "../i18n";
import { useMachines } from "../machines/queries";
import { OfferCode } from "./OfferCode";
import { ACCESS_TIMES, CODE_TIMES, emptyOffer, missingIn, type OfferDraft, toOffer } from "./offer";
import { useOfferWrites } from "./queries";

export function OfferDialog({ onClose }: { onClose: () => void }) {
  const t = useT();
  const [made, setMade] = useState<OfferMade | null>(null);
  return (
    <Modal
      opened
      onClose={onClose}
      // A click beside it must not take away a code that nobody can see again.
      closeOnClickOutside={!made}
      title={t("offers.new")}
      size="lg"
      closeButtonProps={{ "aria-label": t("action.close") }}
    >
      {made ? (
        <OfferCode made={made} onDone={onClose} />
      ) : (
        <OfferForm onMade={setMade} onClose={onClose} />
      )}
    </Modal>
  );
}

const FIELDS = new Set(["target_client_id", "target_host", "target_port", "target_path"]);
const times = (all: readonly number[]) =>
  all.map((one) => ({ value: String(one), label: duration(one) }));

function OfferForm({
  onMade,
  onClose,
}: {
  onMade: (made: OfferMade) => void;
  onClose: () => void;
}) {
  const t = useT();
  const writes = useOfferWrites();
  const { data: machines } = useMachines();
  const [draft, setDraft] = useState(() => emptyOffer());
  const [errors, setErrors] = useState<Record<string, string>>({});
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const change = (field: string, next: Partial<OfferDraft>) => {
    setDraft((before) => ({ ...before, ...next }));
    setErrors(({ [field]: _, ...others }) => others);
    setProblem(null);
  };
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const missing = missingIn(draft);
    setErrors(Object.fromEntries(missing.map((name) => [name, t("field.needed")])));
    if (missing.length) return;
    setBusy(true);
    setProblem(null);
    try {
      onMade(await writes.create(toOffer(draft)));
    } catch (error) {
      const field = error instanceof ApiError ? error.field : undefined;
      const text = explain(error).replace(/^[\w.]+: /, "");
      if (field && FIELDS.has(field)) setErrors({ [field]: text });
      else setProblem(explain(error));
      setBusy(false);
    }
  };
  return (
    <form onSubmit={(event) => void submit(event)} noValidate>
      <Stack gap="sm">
        {problem && (
          <Alert color="red" variant="light" role="alert" py="xs">
            {problem}
          </Alert>
        )}
        <Select
          label={t("sessions.machine")}
          searchable
          nothingFoundMessage={t("machines.noMatch")}
          data={(machines ?? []).map((one) => ({ value: one.id, label: one.name }))}
          value={draft.machine}
          error={errors.target_client_id}
          onChange={(machine) => change("target_client_id", { machine })}
        />
        <SegmentedControl
          aria-label={t("mapping.protocol")}
          value={draft.protocol}
          onChange={(value) => change("target_path", { protocol: value as OfferDraft["protocol"] })}
          data={(["tcp", "unix"] as const).map((one) => ({
            value: one,
            label: t(`protocol.${one}`),
          }))}
        />
        {draft.protocol === "tcp" ? (
          <Group grow align="flex-start" className="field-row">
            <TextInput
              label={t("mapping.targetHost")}
              description={t("mapping.targetHostHint")}
              value={draft.host}
              error={errors.target_host}
              onChange={(event) => change("target_host", { host: event.currentTarget.value })}
            />
            <NumberInput
              label={t("mapping.targetPort")}
              description={t("offers.portHint")}
              allowDecimal={false}
              allowNegative={false}
              hideControls
              value={draft.port}
              error={errors.target_port}
              onChange={(value) =>
                change("target_port", { port: value === "" ? "" : Number(value) })
              }
            />
          </Group>
        ) : (
          <TextInput
            label={t("mapping.targetPath")}
            placeholder="/run/app.sock"
            value={draft.path}
            error={errors.target_path}
            onChange={(event) => change("target_path", { path: event.currentTarget.value })}
          />
        )}
        <Group grow align="flex-start" className="field-row">
          <Select
            label={t("offers.codeFor")}
            description={t("offers.codeForHint")}
            allowDeselect={false}
            value={String(draft.expires)}
            onChange={(value) => value && change("expires_in", { expires: Number(value) })}
            data={times(CODE_TIMES)}
          />
          <Select
            label={t("offers.accessFor")}
            description={t("offers.accessForHint")}
            allowDeselect={false}
            value={String(draft.access)}
            onChange={(value) => value && change("access_for", { access: Number(value) })}
            data={times(ACCESS_TIMES)}
          />
        </Group>
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={onClose}>
            {t("action.cancel")}
          </Button>
          <Button type="submit" loading={busy}>
            {t("offers.create")}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
