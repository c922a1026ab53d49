// Made-up mappings for `npm run dev` and the unit tests. Development only: nothing here is in the
// build.

import { machines } from "./data.ts";

const protocols = ["tcp", "udp", "socks5", "unix"] as const;
const names = ["ssh", "dns", "office-proxy", "docker-socket", "postgres", "metrics", "wireguard"];

export const mapping = (n: number) => {
  const protocol = protocols[(n - 1) % 4] ?? "tcp";
  const port = 20_000 + n;
  const addressed = protocol === "tcp" || protocol === "udp";
  const status = n % 5 === 4 ? "error" : n % 6 === 5 ? "disabled" : "active";
  return {
    id: `00000000-0000-4000-9000-${String(n).padStart(12, "0")}`,
    name: `${names[(n - 1) % names.length]}-${n}`,
    user_id: n % 3 ? "u1" : "u2",
    protocol,
    source: n === 5 ? { port_range: "7000-7010" } : { port },
    target_client_id: machines[n]?.id ?? "",
    target_host: addressed ? "127.0.0.1" : null,
    target_port: addressed ? 22 : null,
    target_path: protocol === "unix" ? "/var/run/docker.sock" : null,
    status,
    error: status === "error" ? `Port ${port} is in use by another program.` : null,
    limits: { bandwidth: n % 2 ? 1024 * 512 : null, connections: n * 10, burst: null },
    options: {
      proxy_protocol: protocol === "tcp" ? "v2" : null,
      accept_proxy_protocol: false,
      allow_ips: n % 2 ? ["192.0.2.0/24"] : [],
      deny_ips: [],
      compression: n % 4 === 1 ? "adaptive" : "none",
      e2e: false,
      carrier: "auto",
      username: protocol === "socks5" ? "office" : null,
      idle_timeout: n % 2 ? 300 : null,
    },
    group: n % 4 === 1 ? "web" : null,
    balance: "round_robin",
    health: n % 4 === 1 ? { type: "http", path: "/ok", interval: 10, fall: 3, rise: 2 } : null,
    health_status: n % 4 === 1 ? health(n) : null,
    declared_by: n === 2 ? (machines[n]?.id ?? null) : null,
    public_port: port,
    public_url: `${protocol === "unix" ? "tcp" : protocol}://gw.example.org:${n === 5 ? 7000 : port}`,
    version: 1,
    stats: { ...totals(n, status), active: status === "active" ? n % 4 : 0 },
    created_at: "2026-01-01T00:00:00.000Z",
    updated_at: "2026-01-02T00:00:00.000Z",
  };
};

const health = (n: number) =>
  n === 9
    ? { health: "down", reason: "GET /ok: 503", since: "2026-01-02T00:00:00.000Z" }
    : { health: "up", reason: null, since: "2026-01-02T00:00:00.000Z" };

/** They grow, so that rates can be seen. */
function totals(n: number, status: string) {
  const since = status === "active" ? (Date.now() % 3_600_000) / 1000 : 60;
  return {
    total_connections: 12 * n,
    bytes_sent: Math.round(since * 1700 * n),
    bytes_received: Math.round(since * 91_000 * n),
    last_active_at: new Date().toISOString(),
  };
}

export const mappings = () => Array.from({ length: 9 }, (_, n) => mapping(n + 1));

export const stats = (id: string) => {
  const one = mappings().find((each) => each.id === id);
  const live = one?.status === "active";
  return {
    ...one?.stats,
    sent_rate: live ? 1700 + Math.random() * 900 : 0,
    received_rate: live ? 91_000 + Math.random() * 40_000 : 0,
    dropped: 0,
  };
};
