// What passes through a mapping: both directions over the last minutes, and the totals.

import { Group, Paper, Text, Title } from "@mantine/core";
import { useEffect, useMemo, useState } from "react";
import type { Mapping } from "../api/types";
import { Chart } from "../app/Chart";
import { ago, bytes } from "../app/format";
import { useT } from "../i18n";
import { keepPoints, NO_POINTS, type RatePoints } from "./points";
import { useMappingStats } from "./queries";

/** Bytes have powers of two; 97.7 KiB is no label. */
const STEPS = Array.from({ length: 45 }, (_, power) => 2 ** power);
const perSecond = (value: number) => `${bytes(value)}/s`;

export function Traffic({ mapping }: { mapping: Mapping }) {
  const t = useT();
  const live = mapping.status === "active";
  const { data: stats, dataUpdatedAt } = useMappingStats(mapping.id, live);
  const [points, setPoints] = useState<RatePoints>(NO_POINTS);
  useEffect(() => {
    if (stats && dataUpdatedAt)
      setPoints((before) => keepPoints(before, stats, dataUpdatedAt / 1000));
  }, [stats, dataUpdatedAt]);
  const lines = useMemo(
    () => ({
      sent: [{ colour: "#4c8dd6", values: points.sent }],
      received: [{ colour: "#22a37b", values: points.received }],
    }),
    [points],
  );
  const figures: [string, string, string][] = [
    ["open", t("mapping.open"), stats ? String(stats.active) : "–"],
    ["connections", t("mapping.connectionsTotal"), stats ? String(stats.total_connections) : "–"],
    ["sent", t("mapping.sentTotal"), bytes(stats?.bytes_sent)],
    ["received", t("mapping.receivedTotal"), bytes(stats?.bytes_received)],
    ["last", t("mapping.lastActive"), stats?.last_active_at ? ago(stats.last_active_at) : "–"],
  ];
  if (mapping.protocol === "udp" || mapping.protocol === "socks5")
    figures.push(["dropped", t("mapping.dropped"), stats ? String(stats.dropped) : "–"]);
  return (
    <Paper p="md" h="100%" component="section" aria-labelledby="traffic-title">
      <Group justify="space-between" mb="xs">
        <Title order={2} id="traffic-title">
          {t("charts.title")}
        </Title>
        {live && (
          <Text size="xs" c="dimmed" className="live-badge">
            {t("charts.live")}
          </Text>
        )}
      </Group>
      <dl className="mapping-figures">
        {figures.map(([name, label, value]) => (
          <div key={name}>
            <Text component="dt" size="xs" c="dimmed">
              {label}
            </Text>
            <Text component="dd" size="lg" fw={620} className="tabular" data-figure={name}>
              {value}
            </Text>
          </div>
        ))}
      </dl>
      <Chart
        label={t("mapping.sent")}
        now={stats ? perSecond(stats.sent_rate) : "–"}
        time={points.time}
        lines={lines.sent}
        format={bytes}
        steps={STEPS}
        gutter={62}
      />
      <Chart
        label={t("mapping.received")}
        now={stats ? perSecond(stats.received_rate) : "–"}
        time={points.time}
        lines={lines.received}
        format={bytes}
        steps={STEPS}
        gutter={62}
      />
    </Paper>
  );
}
