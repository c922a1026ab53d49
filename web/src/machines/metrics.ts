// The points behind a machine's charts: the gateway's history first, then what the live feed adds.

import { useDocumentVisibility } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { get } from "../api/client";
import type { DynamicInfo, MetricPoint } from "../api/types";

/** Half an hour of two-second points; older ones have done their service. */
const KEEP = 900;

export interface Series {
  time: number[];
  cpu: (number | null)[];
  memory: (number | null)[];
  load: (number | null)[];
}

const seconds = (time: number | string): number =>
  typeof time === "number" ? time : Date.parse(time) / 1000;

/** A live message is a point, or the agent's own dynamic info with or without a wrapper. */
export function readPoint(raw: unknown, now: number): MetricPoint | null {
  if (typeof raw !== "object" || raw === null) return null;
  const message = raw as Partial<MetricPoint> & { dynamic_info?: DynamicInfo } & DynamicInfo;
  const info: DynamicInfo = message.dynamic_info ?? message;
  const load = info.load as number[] | number | undefined;
  return {
    time: message.time ?? now,
    cpu: message.cpu ?? info.cpu_percent ?? null,
    memory: message.memory ?? info.memory_percent ?? null,
    disk: message.disk ?? info.disks?.[0]?.percent ?? null,
    load: Array.isArray(load) ? (load[0] ?? null) : (load ?? null),
  };
}

export function toSeries(points: readonly MetricPoint[]): Series {
  const series: Series = { time: [], cpu: [], memory: [], load: [] };
  let last = Number.NEGATIVE_INFINITY;
  for (const point of points) {
    const time = seconds(point.time);
    if (!(time > last)) continue; // uPlot needs strictly rising times; a replayed point is no news
    last = time;
    series.time.push(time);
    series.cpu.push(point.cpu);
    series.memory.push(point.memory);
    series.load.push(point.load);
  }
  return series;
}

export function useMetrics(id: string, live: boolean): MetricPoint[] {
  const history = useQuery({
    queryKey: ["metrics", id],
    queryFn: () =>
      get<{ points: MetricPoint[] }>("/api/v1/assets/{asset_id}/metrics", {
        path: { asset_id: id },
      }),
    refetchOnMount: "always",
  });
  const [recent, setRecent] = useState<MetricPoint[]>([]);
  const { refetch } = history;
  // Only where somebody looks: a browser has six connections for all of its tabs together.
  const watched = useDocumentVisibility() === "visible";
  const away = useRef(false);
  useEffect(() => {
    if (!live) return;
    if (!watched) {
      away.current = true;
      return;
    }
    setRecent([]);
    if (away.current) void refetch(); // what happened meanwhile
    away.current = false;
    const source = new EventSource(`/api/v1/assets/${encodeURIComponent(id)}/metrics/live`);
    source.addEventListener("metrics", (event: MessageEvent<string>) => {
      let point: MetricPoint | null = null;
      try {
        point = readPoint(JSON.parse(event.data), Date.now() / 1000);
      } catch {
        return; // one damaged message is one missing dot
      }
      if (point) setRecent((before) => [...before.slice(-KEEP), point]);
    });
    return () => source.close();
  }, [id, live, watched, refetch]);
  return [...(history.data?.points ?? []), ...recent];
}
