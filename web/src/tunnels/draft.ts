// A mapping as the form holds it, and the way from there to what the API is asked for.

import type { Mapping, MappingOptions, MappingProtocol } from "../api/types";

type Number_ = number | "";

export interface Draft {
  name: string;
  protocol: MappingProtocol;
  machine: string | null;
  host: string;
  port: Number_;
  path: string;
  /** A port, a range `7000-7010`, or nothing: any. */
  listen: string;
  bind: string;
  username: string;
  password: string;
  bandwidth: Number_;
  /** Bytes a second that one of `bandwidth` stands for. */
  unit: number;
  connections: Number_;
  allow: string[];
  deny: string[];
  proxy: "none" | "v1" | "v2";
  acceptProxy: boolean;
  compression: MappingOptions["compression"];
  carrier: MappingOptions["carrier"];
  idle: Number_;
}

export const UNITS = [1, 1024, 1024 ** 2] as const;

export const emptyDraft = (machine: string | null = null): Draft => ({
  name: "",
  protocol: "tcp",
  machine,
  host: "127.0.0.1",
  port: "",
  path: "",
  listen: "",
  bind: "",
  username: "",
  password: "",
  bandwidth: "",
  unit: 1024,
  connections: "",
  allow: [],
  deny: [],
  proxy: "none",
  acceptProxy: false,
  compression: "none",
  carrier: "auto",
  idle: "",
});

export function draftOf(mapping: Mapping): Draft {
  const { limits, options, source } = mapping;
  const bandwidth = limits.bandwidth ?? "";
  // The largest unit that loses nothing: saving what was not touched must not change it.
  const unit = bandwidth === "" ? 1024 : (UNITS.findLast((one) => bandwidth % one === 0) ?? 1);
  return {
    name: mapping.name,
    protocol: mapping.protocol,
    machine: mapping.target_client_id,
    host: mapping.target_host ?? "",
    port: mapping.target_port ?? "",
    path: mapping.target_path ?? "",
    listen: source.port_range ?? String(source.port || ""),
    bind: source.bind ?? "",
    username: options.username ?? "",
    password: "",
    bandwidth: bandwidth === "" ? "" : bandwidth / unit,
    unit,
    connections: limits.connections ?? "",
    allow: options.allow_ips,
    deny: options.deny_ips,
    proxy: options.proxy_protocol ?? "none",
    acceptProxy: options.accept_proxy_protocol,
    compression: options.compression,
    carrier: options.carrier,
    idle: options.idle_timeout ?? "",
  };
}

/** Which of the optional fields a protocol has. */
export const has = {
  address: (protocol: MappingProtocol) => protocol === "tcp" || protocol === "udp",
  login: (protocol: MappingProtocol) => protocol === "socks5",
  proxy: (protocol: MappingProtocol) => protocol !== "socks5",
  acceptProxy: (protocol: MappingProtocol) => protocol !== "udp",
};

type Fields = Record<string, unknown>;

function body(draft: Draft): Fields {
  const { protocol } = draft;
  const listen = draft.listen.trim();
  const number = (value: Number_) => (value === "" ? null : value);
  const options: Fields = {
    allow_ips: draft.allow,
    deny_ips: draft.deny,
    compression: draft.compression,
    carrier: draft.carrier,
    idle_timeout: number(draft.idle),
  };
  if (has.proxy(protocol)) options.proxy_protocol = draft.proxy === "none" ? null : draft.proxy;
  if (has.acceptProxy(protocol)) options.accept_proxy_protocol = draft.acceptProxy;
  if (has.login(protocol)) {
    options.username = draft.username || null;
    // Nobody is ever shown a password, so an empty field means: the one there is.
    if (draft.password) options.password = draft.password;
  }
  return {
    name: draft.name.trim(),
    target_client_id: draft.machine,
    ...(has.address(protocol)
      ? { target_host: draft.host.trim() || null, target_port: number(draft.port) }
      : {}),
    ...(protocol === "unix" ? { target_path: draft.path.trim() } : {}),
    source: {
      // What is no number goes as it is: the gateway says what it should have been.
      ...(listen.includes("-")
        ? { port_range: listen.replace(/\s/g, "") }
        : { port: /^\d*$/.test(listen) ? Number(listen) : listen }),
      ...(draft.bind.trim() ? { bind: draft.bind.trim() } : {}),
    },
    limits: {
      bandwidth: draft.bandwidth === "" ? null : Math.round(draft.bandwidth * draft.unit),
      connections: number(draft.connections),
    },
    options,
  };
}

/** What makes the mapping; what was left alone is left to the gateway. */
export function toCreate(draft: Draft): Fields {
  const wanted = difference(
    body(emptyDraft()),
    body({ ...draft, host: draft.host || "127.0.0.1" }),
  );
  return { ...wanted, protocol: draft.protocol, target_client_id: draft.machine };
}

/** Only what the person changed, so that two people who edit do not undo each other. */
export function toPatch(mapping: Mapping, draft: Draft): Fields {
  const before = body(draftOf(mapping));
  const after = body(draft);
  const changed = difference(before, after);
  // A source is replaced as a whole.
  if (changed.source)
    changed.source = {
      ...(mapping.source.client_id ? { client_id: mapping.source.client_id } : {}),
      ...(after.source as Fields),
    };
  const limits = changed.limits as Fields | undefined;
  if (limits?.bandwidth === null && mapping.limits.burst !== null) limits.burst = null;
  return changed;
}

const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);

/** The fields of `after` that differ, one level deep. */
function difference(before: Fields, after: Fields): Fields {
  const changed: Fields = {};
  for (const [key, value] of Object.entries(after)) {
    if (same(before[key], value)) continue;
    changed[key] =
      typeof value === "object" && value !== null && !Array.isArray(value)
        ? difference((before[key] ?? {}) as Fields, value as Fields)
        : value;
  }
  return changed;
}

/** The fields a person has to fill in and has not, by the API's names. */
export function missing(draft: Draft): string[] {
  const fields: string[] = [];
  if (!draft.machine) fields.push("target_client_id");
  if (has.address(draft.protocol) && draft.port === "") fields.push("target_port");
  if (draft.protocol === "unix" && !draft.path.trim()) fields.push("target_path");
  return fields;
}

/** Behind "More": a field's error there must open it. */
export const isAdvanced = (field: string): boolean =>
  field === "source.bind" ||
  (field.startsWith("options.") && !["options.username", "options.password"].includes(field));

/** `options.allow_ips[2]` and `source.port_range` are entered in one field each. */
export function fieldOfForm(field: string): string {
  const plain = field.replace(/\[\d+\]$/, "");
  if (plain === "source.port_range" || plain === "source") return "source.port";
  return plain === "options.basic_auth" ? "options.username" : plain;
}
