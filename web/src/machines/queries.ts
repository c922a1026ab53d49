// The machines and enrolments as the gateway knows them, and the writes on them.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";
import { get, patch, post, remove } from "../api/client";
import type { Enrolment, JoinToken, Machine, Page } from "../api/types";
import { useIsAdmin } from "../app/account";
import { toastFailure } from "../app/toasts";
import { compareMachines } from "./machine";

/** The list is filtered and sorted here, at once for every key pressed, so all of it is fetched. */
const PAGE_SIZE = 500;

async function fetchMachines({ signal }: { signal: AbortSignal }): Promise<Machine[]> {
  const page = (number: number) =>
    get<Page<Machine>>("/api/v1/assets", {
      query: { page: number, page_size: PAGE_SIZE, sort: "name" },
      signal,
    });
  const first = await page(1);
  // The gateway may cap the page size below what was asked for.
  const pages = Math.ceil(first.total / Math.max(first.page_size, 1));
  const rest = await Promise.all(
    Array.from({ length: Math.max(0, pages - 1) }, (_, n) => page(n + 2)),
  );
  // A machine that came or went between two pages must not appear twice.
  const byId = new Map([first, ...rest].flatMap((one) => one.items).map((one) => [one.id, one]));
  return [...byId.values()].sort(compareMachines);
}

export const useMachines = () => useQuery({ queryKey: ["machines"], queryFn: fetchMachines });

export const useMachine = (id: string) =>
  useQuery({
    queryKey: ["machine", id],
    queryFn: () => get<Machine>("/api/v1/assets/{asset_id}", { path: { asset_id: id } }),
  });

/** A machine's name for lists that only have its id; the id's head while it is unknown or deleted. */
export function useMachineName(): (id: string) => string {
  const { data } = useMachines();
  return useCallback(
    (id: string) => data?.find((machine) => machine.id === id)?.name ?? id.slice(0, 8),
    [data],
  );
}

export function useEnrolments() {
  const admin = useIsAdmin();
  return useQuery({
    queryKey: ["enrolments"],
    enabled: admin,
    queryFn: async () =>
      (
        await get<Page<Enrolment>>("/api/v1/enrolments", {
          query: { status: "pending", page_size: 100 },
        })
      ).items,
  });
}

export interface MachineChange {
  name?: string;
  labels?: Record<string, string>;
  allowed_users?: string[];
  may_declare?: boolean;
  status?: "maintenance" | "online";
}

/** The writes; each refreshes what it touches, so that the page is right even if the feed is away. */
export function useMachineWrites() {
  const queries = useQueryClient();
  return {
    async decide(id: string, verdict: "approve" | "reject") {
      if (verdict === "approve") await post("/api/v1/approve", { body: { id } });
      else await post("/api/v1/reject", { body: { id } });
      await Promise.all([
        queries.invalidateQueries({ queryKey: ["enrolments"] }),
        queries.invalidateQueries({ queryKey: ["machines"] }),
      ]);
    },
    async change(id: string, change: MachineChange) {
      const machine = await patch<Machine>("/api/v1/assets/{asset_id}", {
        path: { asset_id: id },
        body: change,
      });
      queries.setQueryData(["machine", id], machine);
      // What a machine may no longer declare is deleted with the switch.
      if (change.may_declare !== undefined)
        void queries.invalidateQueries({ queryKey: ["mappings"] });
      await queries.invalidateQueries({ queryKey: ["machines"] });
    },
    async remove(id: string) {
      await remove("/api/v1/assets/{asset_id}", { path: { asset_id: id } });
      queries.removeQueries({ queryKey: ["machine", id] });
      await queries.invalidateQueries({ queryKey: ["machines"] });
    },
    createJoinToken: (body: {
      uses: number;
      expires_in: number;
      labels: Record<string, string>;
      may_declare: boolean;
    }) => post<JoinToken>("/api/v1/join-tokens", { body }),
  };
}

/** Runs a write and turns a failure into a toast; true when it went well. */
export async function attempt(title: string, work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    toastFailure(title, error);
    return false;
  }
}
