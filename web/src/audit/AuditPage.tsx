// The audit trail, filtered, and as a file.

import { Button, Group, Select, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { IconDownload, IconSearch } from "@tabler/icons-react";
import { useState } from "react";
import { PageHeader } from "../app/PageHeader";
import { useT } from "../i18n";
import { type EventFilter, EventList } from "./EventList";

const DAY = 86_400_000;

export function AuditPage() {
  const t = useT();
  const [text, setText] = useState("");
  const [q] = useDebouncedValue(text.trim(), 250);
  const [outcome, setOutcome] = useState<string | null>(null);
  const [days, setDays] = useState<string | null>(null);
  // To the hour, so that the same choice stays the same query.
  const since = days
    ? new Date(Math.floor((Date.now() - Number(days) * DAY) / 3_600_000) * 3_600_000).toISOString()
    : undefined;
  const filter: EventFilter = { q: q || undefined, outcome: outcome ?? undefined, from: since };
  const exported = new URLSearchParams({ format: "csv" });
  for (const [name, value] of Object.entries(filter)) if (value) exported.set(name, String(value));
  return (
    <>
      <PageHeader title={t("nav.audit")}>
        <Button
          variant="default"
          component="a"
          href={`/api/v1/events?${exported}`}
          download="events.csv"
          leftSection={<IconDownload size={15} aria-hidden />}
        >
          {t("events.export")}
        </Button>
      </PageHeader>
      <Group gap="xs" mb="sm">
        <TextInput
          className="filter"
          placeholder={t("events.filter")}
          aria-label={t("events.filter")}
          leftSection={<IconSearch size={15} aria-hidden />}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
        />
        <Select
          w={150}
          clearable
          placeholder={t("events.anyOutcome")}
          aria-label={t("events.outcome")}
          value={outcome}
          onChange={setOutcome}
          data={(["ok", "denied", "failed"] as const).map((value) => ({
            value,
            label: t(`outcome.${value}`),
          }))}
        />
        <Select
          w={160}
          clearable
          placeholder={t("events.anyTime")}
          aria-label={t("events.time")}
          value={days}
          onChange={setDays}
          data={[
            { value: "1", label: t("events.day") },
            { value: "7", label: t("events.week") },
            { value: "30", label: t("events.month") },
          ]}
        />
      </Group>
      <EventList key={JSON.stringify(filter)} filter={filter} />
    </>
  );
}
