// What one person may use, and has used; an admin changes it here.

import {
  Alert,
  Button,
  Divider,
  Group,
  Loader,
  Modal,
  NumberInput,
  Select,
  Stack,
} from "@mantine/core";
import { type FormEvent, useState } from "react";
import { ApiError, explain } from "../api/client";
import type { LimitName, Quota, User } from "../api/types";
import { ErrorState } from "../app/ErrorState";
import { toastDone } from "../app/toasts";
import { useT } from "../i18n";
import { QuotaBars } from "./QuotaBars";
import { useQuota, useQuotaWrite } from "./queries";
import { type Draft, draftOf, isLimited, LIMITS, toChange, UNIT_NAMES, UNITS } from "./quota";

export function QuotaDialog({
  user,
  mayChange,
  onClose,
}: {
  user: User;
  mayChange: boolean;
  onClose: () => void;
}) {
  const t = useT();
  const { data, error, refetch } = useQuota(user.id);
  return (
    <Modal
      opened
      onClose={onClose}
      title={t("quota.title", { name: user.username })}
      size="lg"
      closeButtonProps={{ "aria-label": t("action.close") }}
    >
      {error && <ErrorState error={error} onRetry={() => void refetch()} />}
      {!data && !error && <Loader size="sm" />}
      {data && <QuotaBars quota={data} />}
      {data && mayChange && (
        <>
          <Divider my="md" label={t("quota.limits")} labelPosition="left" />
          <QuotaForm quota={data} user={user} onClose={onClose} />
        </>
      )}
    </Modal>
  );
}

function QuotaForm({ quota, user, onClose }: { quota: Quota; user: User; onClose: () => void }) {
  const t = useT();
  const write = useQuotaWrite();
  // Compared with what the admin saw; usage below goes on meanwhile.
  const [seen] = useState(quota);
  const [draft, setDraft] = useState<Draft>(() => draftOf(quota));
  const [problem, setProblem] = useState<{ field?: string; text: string } | null>(null);
  const [busy, setBusy] = useState(false);
  const save = async (change: Partial<Record<LimitName, number | null>>) => {
    setBusy(true);
    setProblem(null);
    try {
      await write(user.id, change);
      toastDone(t("quota.saved", { name: user.username }));
      onClose();
    } catch (error) {
      const field = error instanceof ApiError ? error.field : undefined;
      setProblem({ field, text: explain(error).replace(/^[\w.]+: /, "") });
      setBusy(false);
    }
  };
  const set = (name: LimitName, change: Partial<Draft[LimitName]>) => {
    setDraft((before) => ({ ...before, [name]: { ...before[name], ...change } }));
    if (problem?.field === name) setProblem(null);
  };
  const none = Object.fromEntries(LIMITS.map(({ name }) => [name, null]));
  return (
    <form
      onSubmit={(event: FormEvent) => {
        event.preventDefault();
        void save(toChange(seen, draft));
      }}
    >
      <Stack gap="sm">
        {problem && !problem.field && (
          <Alert color="red" variant="light" role="alert" py="xs">
            {problem.text}
          </Alert>
        )}
        <div className="quota-fields">
          {LIMITS.map(({ name, kind }) => (
            <Group key={name} gap={6} align="flex-end" wrap="nowrap">
              <NumberInput
                flex={1}
                label={t(`quota.${name}`)}
                placeholder={t("mapping.unlimited")}
                allowNegative={false}
                allowDecimal={kind !== "count"}
                hideControls
                value={draft[name].value}
                error={problem?.field === name ? problem.text : null}
                onChange={(value) => set(name, { value: value === "" ? "" : Number(value) })}
              />
              {kind !== "count" && (
                <Select
                  w={88}
                  aria-label={t("quota.unitOf", { name: t(`quota.${name}`) })}
                  allowDeselect={false}
                  value={String(draft[name].unit)}
                  onChange={(unit) => unit && set(name, { unit: Number(unit) })}
                  data={UNITS.map((unit, n) => ({
                    value: String(unit),
                    label: `${UNIT_NAMES[n]}${kind === "rate" ? "/s" : ""}`,
                  }))}
                />
              )}
            </Group>
          ))}
        </div>
        <Alert color="gray" variant="light" py="xs">
          {t("quota.stays")}
        </Alert>
        <Group justify="space-between">
          <Button
            variant="subtle"
            color="red"
            disabled={busy || !isLimited(seen)}
            onClick={() => void save(none)}
          >
            {t("quota.clear")}
          </Button>
          <Group gap="xs">
            <Button variant="default" onClick={onClose}>
              {t("action.cancel")}
            </Button>
            <Button type="submit" loading={busy}>
              {t("action.save")}
            </Button>
          </Group>
        </Group>
      </Stack>
    </form>
  );
}
