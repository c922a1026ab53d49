// Made-up machines, sessions and recordings for `npm run dev`. Development only: nothing here is in
// the build.

const HOUR = 3_600_000;
const at = (ago: number) => new Date(Date.now() - ago).toISOString();
const GIB = 2 ** 30;
const systems = [
  ["Debian GNU/Linux", "12"],
  ["Ubuntu", "24.04"],
  ["Alpine Linux", "3.20"],
  ["Fedora Linux", "41"],
] as const;
const statuses = [
  "online",
  "online",
  "online",
  "online",
  "degraded",
  "offline",
  "online",
  "maintenance",
] as const;
const envs = ["prod", "staging", "dev"] as const;
const roles = ["web", "db", "build", "edge"] as const;

export const machine = (n: number) => {
  const [os, os_version] = systems[n % 4] ?? systems[0];
  const status = statuses[n % 8] ?? "online";
  const name = `${roles[n % 4]}-${String(n).padStart(2, "0")}`;
  return {
    id: `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`,
    name,
    hostname: `${name}.internal`,
    labels: { env: envs[n % 3], role: roles[n % 4] },
    allowed_users: [],
    may_declare: n === 2,
    status,
    linked: status === "online",
    key_fingerprint: `sha256:${"4f9a2c71".repeat(8)}`,
    version: "0.1.0",
    address: `10.0.${n >> 8}.${n & 255}`,
    created_at: at(HOUR * 24 * 12),
    updated_at: at(HOUR),
    last_seen_at: at(status === "offline" ? HOUR * 5 : 9_000),
    static_info: {
      os,
      os_version,
      kernel: "6.1.0-28",
      arch: "x86_64",
      cpu_model: "EPYC 7543",
      cpu_count: 8,
      memory_total: 16 * GIB,
      disks: [{ mount: "/", total: 80 * GIB }],
      interfaces: [{ name: "eth0", addresses: [`10.0.0.${n & 255}`, "fe80::1"] }],
      agent_version: "0.1.0",
      container_engine: "docker 27.3",
    },
    dynamic_info: {
      cpu_percent: (n * 37) % 100,
      load: [0.4, 0.6, 0.5],
      memory_used: ((n * 17) % 90) * 0.16 * GIB,
      memory_total: 16 * GIB,
      memory_percent: (n * 17) % 90,
      disks: [{ mount: "/", used: 31 * GIB, total: 80 * GIB, percent: 38.7 }],
      uptime: 864_000 + n,
      container_engine: true,
    },
    sessions: n % 5 === 0 ? 1 : 0,
  };
};

export const machines = Array.from({ length: Number(process.env.MOCK_MACHINES ?? 24) }, (_, n) =>
  machine(n + 1),
);

export const enrolments = [
  {
    id: "e1",
    client_id: "c1",
    hostname: "new-laptop",
    key_fingerprint: `sha256:${"b1946ac9".repeat(8)}`,
    apply_status: "pending",
    created_at: at(40_000),
    address: "203.0.113.9",
  },
];

export const session = (n: number, status = "active") => ({
  id: `5e551000-0000-4000-8000-${String(n).padStart(12, "0")}`,
  asset_id: machines[n % machines.length]?.id ?? "",
  user_id: "u1",
  username: n % 2 ? "admin" : "li",
  status,
  command: "/bin/bash",
  cols: 120,
  rows: 32,
  created_at: at(n * 400_000),
  started_at: at(n * 400_000),
  ended_at: status === "closed" ? at(n * 300_000) : null,
  exit_code: status === "closed" ? n % 3 : null,
  signal: null,
  browser_ip: "198.51.100.7",
  agent_ip: "10.0.0.4",
  recording: `r${n}`,
  observers: n === 1 ? 1 : 0,
  error_message: null,
});
export const sessions = [
  session(1),
  session(2, "detached"),
  ...[3, 4, 5, 6].map((n) => session(n, "closed")),
];

export const recordings = [1, 2, 3, 4, 5].map((n) => ({
  id: `r${n}`,
  session_id: sessions[n]?.id ?? "",
  asset_id: machines[n]?.id ?? "",
  username: "admin",
  started_at: at(n * HOUR),
  duration: 61.5 * n,
  size: 18_400 * n,
  sha256: "9".repeat(64),
  status: n === 1 ? "recording" : n === 4 ? "interrupted" : "finished",
  title: null,
}));

export const cast = () => {
  const lines = [JSON.stringify({ version: 2, width: 80, height: 24, timestamp: 1_700_000_000 })];
  let time = 0;
  for (let n = 0; n < 60; n++) {
    time += n % 10 === 9 ? 6 : 0.4;
    lines.push(
      JSON.stringify([
        Number(time.toFixed(3)),
        "o",
        `\x1b[32mline ${n}\x1b[0m of the recording\r\n`,
      ]),
    );
    if (n % 25 === 20) lines.push(JSON.stringify([Number(time.toFixed(3)), "m", `mark ${n}`]));
  }
  return `${lines.join("\n")}\n`;
};

export const events = [
  "agent.approved",
  "session.started",
  "user.signed_in",
  "access.decided",
  "agent.offline",
].map((type, n) => ({
  id: `ev${n}`,
  time: at(n * 900_000),
  type,
  actor: n === 4 ? null : "admin",
  agent_id: machines[n]?.id ?? null,
  object_id: null,
  ip: "198.51.100.7",
  outcome: n === 3 ? "denied" : "ok",
  rule: n === 3 ? "default-deny" : null,
  details: { note: "mock" },
}));

export const users = [
  {
    id: "u1",
    username: "admin",
    email: null,
    role: "admin",
    disabled: false,
    created_at: at(HOUR * 99),
    last_login_at: at(60_000),
  },
  {
    id: "u2",
    username: "li",
    email: "li@example.org",
    role: "user",
    disabled: false,
    created_at: at(HOUR * 50),
    last_login_at: null,
  },
];
