// Machines that ask to be let in. The fingerprint is what an admin compares with the one the agent
// printed on that machine; everything else an applicant can make up.

import { Button, Group, Paper, Stack, Text, Title } from "@mantine/core";
import { IconCheck, IconKey, IconX } from "@tabler/icons-react";
import { useState } from "react";
import type { Enrolment } from "../api/types";
import { CopyButton } from "../app/CopyButton";
import { ago, shortFingerprint } from "../app/format";
import { toastDone } from "../app/toasts";
import { useT } from "../i18n";
import { attempt, useEnrolments, useMachineWrites } from "./queries";

export function PendingEnrolments() {
  const t = useT();
  const { data } = useEnrolments();
  if (!data?.length) return null;
  return (
    <Paper component="section" className="pending" p="sm" mb="md" aria-labelledby="pending-title">
      <Title order={2} id="pending-title" mb={2}>
        {t("enrolments.title")}
      </Title>
      <Text size="xs" c="dimmed" mb="xs">
        {t("enrolments.lead")}
      </Text>
      <Stack gap={0}>
        {data.map((enrolment) => (
          <Application key={enrolment.id} enrolment={enrolment} />
        ))}
      </Stack>
    </Paper>
  );
}

function Application({ enrolment }: { enrolment: Enrolment }) {
  const t = useT();
  const writes = useMachineWrites();
  const [busy, setBusy] = useState<"approve" | "reject" | null>(null);
  const decide = async (verdict: "approve" | "reject") => {
    setBusy(verdict);
    const done = await attempt(t("enrolments.failed"), () => writes.decide(enrolment.id, verdict));
    setBusy(null);
    if (done)
      toastDone(
        t(verdict === "approve" ? "enrolments.approved" : "enrolments.rejected", {
          name: enrolment.hostname,
        }),
      );
  };
  return (
    <Group className="application" gap="md" wrap="wrap" data-testid="enrolment">
      <div className="application-name">
        <Text fw={600} size="sm" truncate>
          {enrolment.hostname}
        </Text>
        <Text size="xs" c="dimmed">
          {[enrolment.address, ago(enrolment.created_at)].filter(Boolean).join(" · ")}
        </Text>
      </div>
      <Group gap={4} wrap="nowrap" className="fingerprint" title={enrolment.key_fingerprint}>
        <IconKey size={14} aria-hidden />
        <Text size="xs" ff="monospace">
          {shortFingerprint(enrolment.key_fingerprint)}
        </Text>
        <CopyButton text={enrolment.key_fingerprint} label={t("enrolments.copyFingerprint")} />
      </Group>
      <Group gap="xs" ml="auto">
        <Button
          size="xs"
          leftSection={<IconCheck size={14} aria-hidden />}
          loading={busy === "approve"}
          disabled={busy !== null}
          onClick={() => void decide("approve")}
          aria-label={t("enrolments.approveName", { name: enrolment.hostname })}
        >
          {t("enrolments.approve")}
        </Button>
        <Button
          size="xs"
          variant="default"
          leftSection={<IconX size={14} aria-hidden />}
          loading={busy === "reject"}
          disabled={busy !== null}
          onClick={() => void decide("reject")}
          aria-label={t("enrolments.rejectName", { name: enrolment.hostname })}
        >
          {t("enrolments.reject")}
        </Button>
      </Group>
    </Group>
  );
}
