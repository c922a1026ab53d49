// Quotas as the gateway knows them; an admin changes them.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { get, post } from "../api/client";
import type { LimitName, Quota } from "../api/types";

const ROUTE = "/api/v1/users/{user_id}/quota";
/** Milliseconds between two looks; usage moves with every byte, and no feed tells. */
const LOOK = 10_000;

export const useQuota = (userId: string, on = true) =>
  useQuery({
    queryKey: ["quota", userId],
    queryFn: () => get<Quota>(ROUTE, { path: { user_id: userId } }),
    refetchInterval: LOOK,
    enabled: on,
  });

export function useQuotaWrite() {
  const queries = useQueryClient();
  return async (userId: string, change: Partial<Record<LimitName, number | null>>) => {
    const quota = await post<Quota>(ROUTE, { path: { user_id: userId }, body: change });
    queries.setQueryData(["quota", userId], quota);
  };
}
