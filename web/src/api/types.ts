// The shapes the gateway answers with (spec 7 and the settled extras). The routes answer an envelope
// around them, which the generated schema does not describe; client.ts takes it off.

export interface Page<Item> {
  items: Item[];
  total: number;
  page: number;
  page_size: number;
}

export type Role = "admin" | "auditor" | "user";

export interface User {
  id: string;
  username: string;
  email: string | null;
  role: Role;
  disabled: boolean;
  created_at: string;
  last_login_at: string | null;
}

export interface SignedIn {
  user: User;
  csrf_token: string;
}

export type MachineStatus = "online" | "offline" | "maintenance" | "degraded";

export interface StaticInfo {
  os?: string;
  os_version?: string;
  kernel?: string;
  arch?: string;
  cpu_model?: string;
  cpu_count?: number;
  memory_total?: number;
  disks?: { mount: string; total: number }[];
  interfaces?: { name: string; addresses: string[] }[];
  agent_version?: string;
  container_engine?: string | boolean | null;
}

export interface DynamicInfo {
  cpu_percent?: number;
  load?: number[];
  memory_used?: number;
  memory_total?: number;
  memory_percent?: number;
  disks?: { mount: string; used: number; total: number; percent: number }[];
  uptime?: number;
  container_engine?: boolean;
}

export interface Machine {
  id: string;
  name: string;
  hostname: string;
  labels: Record<string, string>;
  allowed_users: string[];
  /** Whether mappings in its underpass.yaml count. */
  may_declare: boolean;
  status: MachineStatus;
  linked: boolean;
  key_fingerprint: string;
  version: string | null;
  address: string | null;
  created_at: string;
  updated_at: string;
  last_seen_at: string | null;
  static_info: StaticInfo;
  dynamic_info: DynamicInfo;
  sessions: number;
}

export interface MetricPoint {
  time: number | string;
  cpu: number | null;
  memory: number | null;
  disk: number | null;
  load: number | null;
}

export interface Enrolment {
  id: string;
  client_id: string;
  hostname: string;
  key_fingerprint: string;
  apply_status: "pending" | "approved" | "rejected";
  created_at: string;
  address: string | null;
}

export interface JoinToken {
  id: string;
  token: string;
  join_command?: string;
}

export type SessionStatus = "connecting" | "active" | "detached" | "closed" | "error";

export interface Session {
  id: string;
  asset_id: string;
  user_id: string;
  username: string;
  status: SessionStatus;
  command: string;
  cols: number;
  rows: number;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  exit_code: number | null;
  signal: string | null;
  browser_ip: string | null;
  agent_ip: string | null;
  recording: string | null;
  observers: number;
  error_message: string | null;
}

export interface Recording {
  id: string;
  session_id: string;
  asset_id: string;
  username: string;
  started_at: string;
  duration: number;
  size: number;
  sha256: string | null;
  status: "recording" | "finished" | "interrupted";
  title: string | null;
  hits?: { time: number; line: string }[];
}

export interface RecordingIndex {
  keyframes: { time: number; offset: number }[];
  markers: { time: number; label: string }[];
  duration: number;
  size: number;
}

export interface AuditEvent {
  id: string;
  time: string;
  type: string;
  actor: string | null;
  agent_id: string | null;
  object_id: string | null;
  ip: string | null;
  outcome: "ok" | "denied" | "failed";
  rule: string | null;
  details: Record<string, unknown>;
}

export interface ApiKey {
  id: string;
  name: string;
  token?: string;
  created_at: string;
  expires_at: string | null;
  last_used_at: string | null;
}

export interface TerminalTicket {
  token: string;
  expires_in: number;
}

export type LimitName =
  | "max_mappings"
  | "max_active_mappings"
  | "max_connections_per_mapping"
  | "bandwidth"
  | "monthly_traffic"
  | "max_sessions";

/** What a person may use (null: no limit), and has used. Bandwidth in bytes a second. */
export type Quota = Record<LimitName, number | null> & {
  user_id: string;
  usage: {
    mappings: number;
    active_mappings: number;
    sessions: number;
    connections: number;
    traffic: number;
    month: string;
    renews_at: string;
  };
};

export type OfferStatus = "waiting" | "accepted" | "expired" | "revoked";

export interface Offer {
  id: string;
  user_id: string;
  username: string;
  target_client_id: string;
  machine: string;
  target: string;
  status: OfferStatus;
  /** Seconds the access lasts once accepted. */
  access_for: number;
  created_at: string;
  /** Of the code; once accepted, of the access. */
  expires_at: string;
  accepted_by: string | null;
  accepted_at: string | null;
  ended_at: string | null;
}

/** Its code is told this once. */
export interface OfferMade extends Offer {
  code: string;
}

export type MappingProtocol = "tcp" | "udp" | "socks5" | "unix";
export type MappingStatus = "active" | "disabled" | "error";

export interface MappingOptions {
  proxy_protocol: "v1" | "v2" | null;
  accept_proxy_protocol: boolean;
  allow_ips: string[];
  deny_ips: string[];
  compression: "none" | "zstd" | "lz4" | "gzip" | "adaptive";
  e2e: boolean;
  carrier: "auto" | "mux" | "dedicated";
  username: string | null;
  idle_timeout: number | null;
}

/** Sent is towards the target, received is back from it. */
export interface MappingStats {
  total_connections: number;
  active: number;
  bytes_sent: number;
  bytes_received: number;
  last_active_at: string | null;
}

export interface MappingLiveStats extends MappingStats {
  sent_rate: number;
  received_rate: number;
  dropped: number;
}

/** How the targets of a group are tried; `interval` in seconds. */
export interface MappingHealthCheck {
  type: "tcp" | "http";
  path: string;
  interval: number;
  fall: number;
  rise: number;
}

export interface MappingHealth {
  health: "up" | "down" | "unknown";
  reason: string | null;
  since: string | null;
}

export interface Mapping {
  id: string;
  name: string;
  user_id: string;
  protocol: MappingProtocol;
  source: {
    port?: number | null;
    port_range?: string | null;
    client_id?: string | null;
    bind?: string | null;
  };
  target_client_id: string;
  target_host: string | null;
  target_port: number | null;
  target_path: string | null;
  status: MappingStatus;
  error: string | null;
  limits: { bandwidth: number | null; connections: number | null; burst: number | null };
  options: MappingOptions;
  group: string | null;
  balance: "round_robin" | "least_connections";
  health: MappingHealthCheck | null;
  /** Null where the target is not tried. */
  health_status: MappingHealth | null;
  /** The machine whose underpass.yaml asks for it; then only `status` can be changed. */
  declared_by: string | null;
  public_port: number | null;
  public_url: string | null;
  version: number;
  stats: MappingStats;
  created_at: string;
  updated_at: string;
}
