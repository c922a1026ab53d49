// CPU, memory and load of a machine over time, moving by themselves while the page is open.

import { Group, Paper, Text, Title } from "@mantine/core";
import { useMemo } from "react";
import type { Machine } from "../api/types";
import { Chart } from "../app/Chart";
import { percent } from "../app/format";
import { useT } from "../i18n";
import { toSeries, useMetrics } from "./metrics";

const inPercent = (value: number) => `${value}%`;

export function MachineCharts({ machine }: { machine: Machine }) {
  const t = useT();
  const points = useMetrics(machine.id, machine.status !== "offline");
  const series = useMemo(() => toSeries(points), [points]);
  const lines = useMemo(
    () => ({
      cpu: [{ colour: "#22a37b", values: series.cpu }],
      memory: [{ colour: "#4c8dd6", values: series.memory }],
      load: [{ colour: "#c98a2b", values: series.load }],
    }),
    [series],
  );
  const last = (values: (number | null)[]) => values.at(-1) ?? null;
  return (
    <Paper p="md" h="100%">
      <Group justify="space-between" mb="xs">
        <Title order={2}>{t("charts.title")}</Title>
        {machine.status !== "offline" && (
          <Text size="xs" c="dimmed" className="live-badge">
            {t("charts.live")}
          </Text>
        )}
      </Group>
      <Chart
        label={t("machines.cpu")}
        now={percent(last(series.cpu))}
        time={series.time}
        lines={lines.cpu}
        ceiling={100}
        format={inPercent}
      />
      <Chart
        label={t("machines.memory")}
        now={percent(last(series.memory))}
        time={series.time}
        lines={lines.memory}
        ceiling={100}
        format={inPercent}
      />
      <Chart
        label={t("charts.load")}
        now={last(series.load)?.toFixed(2) ?? "–"}
        time={series.time}
        lines={lines.load}
      />
    </Paper>
  );
}
