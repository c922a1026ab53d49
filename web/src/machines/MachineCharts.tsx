// CPU, memory and load of a machine over time, moving by themselves while the page is open.

import { Group, Paper, Text, Title, useComputedColorScheme } from "@mantine/core";
import { useEffect, useMemo, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Machine } from "../api/types";
import { percent } from "../app/format";
import { locale, useT } from "../i18n";
import { toSeries, useMetrics } from "./metrics";

interface ChartProps {
  label: string;
  now: string;
  time: number[];
  values: (number | null)[];
  colour: string;
  ceiling?: number;
}

export function MachineCharts({ machine }: { machine: Machine }) {
  const t = useT();
  const points = useMetrics(machine.id, machine.status !== "offline");
  const series = useMemo(() => toSeries(points), [points]);
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
        values={series.cpu}
        colour="#22a37b"
        ceiling={100}
      />
      <Chart
        label={t("machines.memory")}
        now={percent(last(series.memory))}
        time={series.time}
        values={series.memory}
        colour="#4c8dd6"
        ceiling={100}
      />
      <Chart
        label={t("charts.load")}
        now={last(series.load)?.toFixed(2) ?? "–"}
        time={series.time}
        values={series.load}
        colour="#c98a2b"
      />
    </Paper>
  );
}

function Chart({ label, now, time, values, colour, ceiling }: ChartProps) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const scheme = useComputedColorScheme("light");
  const language = locale();

  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const grey = scheme === "dark" ? "#8b94a3" : "#6b7280";
    const grid = { stroke: scheme === "dark" ? "#2c323b" : "#e9ecef", width: 1 };
    const format = (second?: "2-digit") =>
      new Intl.DateTimeFormat(language, {
        hour: "2-digit",
        minute: "2-digit",
        second,
        hourCycle: "h23",
      });
    const [minutes, seconds] = [format(), format("2-digit")];
    const font = "11px system-ui, sans-serif";
    const chart = new uPlot(
      {
        width: element.clientWidth || 300,
        height: 128,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { y: { range: (_, __, max) => [0, ceiling ?? Math.max(1, max * 1.25)] } },
        axes: [
          {
            stroke: grey,
            grid,
            ticks: grid,
            font,
            space: 80,
            size: 26,
            values: (_, all) => {
              // Labels a few seconds apart would all read the same without their seconds.
              const step = (all[1] ?? 0) - (all[0] ?? 0);
              return all.map((one) => (step < 60 ? seconds : minutes).format(one * 1000));
            },
          },
          {
            stroke: grey,
            grid,
            ticks: { show: false },
            font,
            size: 38,
            space: 26,
            values: (_, all) => all.map((one) => (ceiling ? `${one}%` : String(one))),
          },
        ],
        series: [
          {},
          {
            stroke: colour,
            width: 1.6,
            fill: `${colour}1f`,
            points: { show: false },
            spanGaps: false,
          },
        ],
      },
      [[], []],
      element,
    );
    plot.current = chart;
    const observer = new ResizeObserver(() =>
      chart.setSize({ width: element.clientWidth, height: 128 }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = null;
    };
  }, [ceiling, colour, language, scheme]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: a chart made anew needs its data again
  useEffect(() => {
    plot.current?.setData([time, values]);
  }, [time, values, scheme, language]);

  return (
    <figure className="chart" aria-label={`${label} ${now}`}>
      <Group justify="space-between" component="figcaption">
        <Text size="xs" c="dimmed">
          {label}
        </Text>
        <Text size="xs" fw={600} className="tabular">
          {now}
        </Text>
      </Group>
      <div ref={host} className="chart-body" />
    </figure>
  );
}
