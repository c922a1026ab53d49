// What a machine is made of, as its agent reported it, and who vouches for it (its key).

import { Paper, Text, Title } from "@mantine/core";
import type { Machine } from "../api/types";
import { type Fact, Facts } from "../app/Facts";
import { ago, bytes, duration, moment, shortFingerprint } from "../app/format";
import { useT } from "../i18n";
import { Meter } from "./Meter";

export function MachineFacts({ machine }: { machine: Machine }) {
  const t = useT();
  const { static_info: facts, dynamic_info: load } = machine;
  const rows: Fact[] = [
    [t("facts.os"), [facts.os, facts.os_version].filter(Boolean).join(" ") || "–"],
    [t("facts.kernel"), [facts.kernel, facts.arch].filter(Boolean).join(" · ") || "–"],
    [
      t("facts.cpu"),
      [facts.cpu_model, facts.cpu_count && `× ${facts.cpu_count}`].filter(Boolean).join(" ") || "–",
    ],
    [t("facts.memory"), bytes(facts.memory_total)],
    [t("facts.uptime"), duration(load.uptime)],
    [t("facts.address"), machine.address ?? "–"],
    [
      t("facts.network"),
      facts.interfaces
        ?.filter((one) => one.addresses.length)
        .map((one) => `${one.name} ${one.addresses[0]}`)
        .join(", ") || "–",
    ],
    [
      t("facts.engine"),
      typeof facts.container_engine === "string"
        ? facts.container_engine
        : t(facts.container_engine ? "facts.yes" : "facts.no"),
    ],
    [t("facts.declares"), t(machine.may_declare ? "facts.may" : "facts.mayNot")],
    [t("facts.agent"), machine.version ?? facts.agent_version ?? "–"],
    [t("facts.link"), t(machine.linked ? "facts.linked" : "facts.unlinked")],
    [
      t("facts.seen"),
      <span key="seen" title={moment(machine.last_seen_at)}>
        {ago(machine.last_seen_at)}
      </span>,
    ],
    [t("facts.enrolled"), moment(machine.created_at)],
    [
      t("facts.key"),
      <span key="key" className="mono" title={machine.key_fingerprint}>
        {shortFingerprint(machine.key_fingerprint)}
      </span>,
    ],
  ];
  return (
    <Paper p="md" h="100%">
      <Title order={2} mb="xs">
        {t("facts.title")}
      </Title>
      <Facts rows={rows} />
      {!!load.disks?.length && (
        <>
          <Title order={3} mt="sm" mb={4}>
            {t("facts.disks")}
          </Title>
          {load.disks.map((disk) => (
            <div key={disk.mount} className="disk">
              <Text size="sm" ff="monospace" truncate>
                {disk.mount}
              </Text>
              <Meter label={disk.mount} value={disk.percent} />
              <Text size="xs" c="dimmed">
                {bytes(disk.used)} / {bytes(disk.total)}
              </Text>
            </div>
          ))}
        </>
      )}
    </Paper>
  );
}
