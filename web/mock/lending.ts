// Made-up quotas and offers for `npm run dev`. Development only: nothing here is in the build.

import { machines } from "./data.ts";

export const quota = (userId: string) => ({
  user_id: userId,
  max_mappings: 5,
  max_active_mappings: null,
  max_connections_per_mapping: 20,
  bandwidth: 1_000_000,
  monthly_traffic: 10_000_000_000,
  max_sessions: null,
  usage: {
    mappings: 4,
    active_mappings: 3,
    sessions: 1,
    connections: 7,
    traffic: 7_312_004_511,
    month: "2026-01",
    renews_at: "2026-02-01T00:00:00.000Z",
  },
});

const offer = (n: number) => ({
  id: `00000000-0000-4000-a000-${String(n).padStart(12, "0")}`,
  user_id: n === 3 ? "guest:5f0c2a9e0b7dc550d632f0a5b9e7c1" : "u1",
  username: n === 3 ? "guest-5f0c2a9e" : "ada",
  target_client_id: machines[n]?.id ?? "",
  machine: machines[n]?.name ?? "",
  target: n === 2 ? "unix:/run/app.sock" : "tcp:127.0.0.1:3306",
  status: n === 1 ? "waiting" : "accepted",
  access_for: 28_800,
  created_at: new Date().toISOString(),
  expires_at: new Date(Date.now() + 600_000).toISOString(),
  accepted_by: n === 1 ? null : n === 2 ? "bob" : "guest-0b7dc550",
  accepted_at: null,
  ended_at: null,
});

export const offers = () => [3, 1, 2].map(offer);
export const madeOffer = () => ({ ...offer(1), code: "7K3M-9QXD-4TNB" });
