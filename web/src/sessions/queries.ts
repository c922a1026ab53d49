// Terminal sessions as the gateway keeps them.

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { get, remove } from "../api/client";
import type { Page, Session } from "../api/types";

export interface SessionFilter {
  asset_id?: string;
  status?: string;
  page?: number;
  page_size?: number;
}

export const isLive = ({ status }: Pick<Session, "status">): boolean =>
  status === "connecting" || status === "active" || status === "detached";

export const useSessions = (filter: SessionFilter) =>
  useQuery({
    queryKey: ["sessions", filter],
    queryFn: () =>
      get<Page<Session>>("/api/v1/sessions", { query: { sort: "-created_at", ...filter } }),
    placeholderData: keepPreviousData,
  });

export const endSession = (id: string) =>
  remove("/api/v1/sessions/{session_id}", { path: { session_id: id } });
