// The mappings as the gateway knows them, what passes through them, and the writes on them.

import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { get, patch, post, remove } from "../api/client";
import type { Mapping, MappingLiveStats, MappingStatus, Page } from "../api/types";
import { useAccount } from "../app/account";
import { type Rate, RateMeter } from "./mapping";

/** Milliseconds between two looks at what passes; none while the page is hidden. */
export const POLL = 2000;

export interface MappingFilter {
  q?: string;
  status?: MappingStatus;
  client_id?: string;
  page?: number;
  page_size?: number;
  sort?: string;
}

export interface MappingRow extends Mapping {
  /** Bytes a second since the last look; null at the first one. */
  rate: Rate | null;
}

const meter = new RateMeter();

async function fetchMappings(
  filter: MappingFilter,
  signal: AbortSignal,
): Promise<Page<MappingRow>> {
  const page = await get<Page<Mapping>>("/api/v1/mappings", {
    query: { page_size: 50, sort: "name", ...filter },
    signal,
  });
  const now = Date.now();
  meter.forget(now);
  const items = page.items.map((one) => ({
    ...one,
    rate: meter.take(
      one.id,
      { sent: one.stats.bytes_sent, received: one.stats.bytes_received },
      now,
    ),
  }));
  return { ...page, items };
}

export const useMappings = (
  filter: MappingFilter,
  options: { live?: boolean; on?: boolean } = {},
) =>
  useQuery({
    queryKey: ["mappings", filter],
    queryFn: ({ signal }) => fetchMappings(filter, signal),
    placeholderData: keepPreviousData,
    enabled: options.on ?? true,
    refetchInterval: options.live ? POLL : false,
    // What was counted while nobody looked is no rate.
    staleTime: options.live ? 0 : undefined,
  });

export const useMapping = (id: string) =>
  useQuery({
    queryKey: ["mapping", id],
    queryFn: () => get<Mapping>("/api/v1/mappings/{mapping_id}", { path: { mapping_id: id } }),
  });

export const useMappingStats = (id: string, live: boolean) =>
  useQuery({
    queryKey: ["mapping-stats", id],
    queryFn: () =>
      get<MappingLiveStats>("/api/v1/mappings/{mapping_id}/stats", { path: { mapping_id: id } }),
    refetchInterval: live ? POLL : 5 * POLL,
    staleTime: 0,
  });

/** Whose it is may change it, and admins; auditors look. */
export function useMayChange(): (mapping: Mapping) => boolean {
  const account = useAccount();
  return (mapping) => account.role === "admin" || mapping.user_id === account.id;
}

/** The writes; each refreshes what it touches, so that the page is right even if the feed is away. */
export function useMappingWrites() {
  const queries = useQueryClient();
  const settle = async (mapping: Mapping): Promise<Mapping> => {
    // An answer on its way is from before.
    await queries.cancelQueries({ queryKey: ["mapping", mapping.id] });
    queries.setQueryData(["mapping", mapping.id], mapping);
    await queries.invalidateQueries({ queryKey: ["mappings"] });
    return mapping;
  };
  return {
    create: async (body: Record<string, unknown>) =>
      settle(await post<Mapping>("/api/v1/mappings", { body })),
    change: async (id: string, body: Record<string, unknown>) =>
      settle(
        await patch<Mapping>("/api/v1/mappings/{mapping_id}", { path: { mapping_id: id }, body }),
      ),
    remove: async (id: string) => {
      await remove("/api/v1/mappings/{mapping_id}", { path: { mapping_id: id } });
      // Whatever still shows it must not ask for it again.
      await queries.cancelQueries({ queryKey: ["mapping", id] });
      await queries.invalidateQueries({ queryKey: ["mappings"] });
    },
  };
}
