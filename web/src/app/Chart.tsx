// One or two lines over time. Its page is fetched on demand: the drawing library is not small.

import { Group, Text, useComputedColorScheme } from "@mantine/core";
import { useEffect, useMemo, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { locale } from "../i18n";

export interface Line {
  colour: string;
  values: (number | null)[];
}

interface ChartProps {
  label: string;
  /** The last value as text. */
  now: string;
  /** Unix seconds, strictly rising. */
  time: number[];
  lines: readonly Line[];
  ceiling?: number;
  format?: (value: number) => string;
  /** Distances the values' labels may have; default: decimal ones. */
  steps?: number[];
  /** How wide the labels of the values are, in pixels. */
  gutter?: number;
}

const HEIGHT = 128;

export function Chart({
  label,
  now,
  time,
  lines,
  ceiling,
  format = String,
  steps,
  gutter = 38,
}: ChartProps) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const scheme = useComputedColorScheme("light");
  const language = locale();
  const colours = lines.map((line) => line.colour).join();
  const data = useMemo(() => [time, ...lines.map((line) => line.values)], [time, lines]);

  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const grey = scheme === "dark" ? "#8b94a3" : "#6b7280";
    const grid = { stroke: scheme === "dark" ? "#2c323b" : "#e9ecef", width: 1 };
    const clock = (second?: "2-digit") =>
      new Intl.DateTimeFormat(language, {
        hour: "2-digit",
        minute: "2-digit",
        second,
        hourCycle: "h23",
      });
    const [minutes, seconds] = [clock(), clock("2-digit")];
    const font = "11px system-ui, sans-serif";
    const chart = new uPlot(
      {
        width: element.clientWidth || 300,
        height: HEIGHT,
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
            size: gutter,
            space: 26,
            values: (_, all) => all.map(format),
            ...(steps ? { incrs: steps } : {}),
          },
        ],
        series: [
          {},
          ...colours.split(",").map((colour) => ({
            stroke: colour,
            width: 1.6,
            fill: `${colour}1f`,
            points: { show: false },
            spanGaps: false,
          })),
        ],
      },
      colours.split(",").reduce<[number[], ...number[][]]>((none) => [...none, []], [[]]),
      element,
    );
    plot.current = chart;
    const observer = new ResizeObserver(() =>
      chart.setSize({ width: element.clientWidth, height: HEIGHT }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = null;
    };
  }, [ceiling, colours, format, gutter, language, scheme, steps]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: a chart made anew needs its data again
  useEffect(() => {
    plot.current?.setData(data as uPlot.AlignedData);
  }, [data, scheme, language]);

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
