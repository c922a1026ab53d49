import { expect, it } from "vitest";
import { mapping } from "../../mock/tunnels";
import type { Mapping } from "../api/types";
import { draftOf, emptyDraft, fieldOfForm, isAdvanced, missing, toCreate, toPatch } from "./draft";

const stored = (change: Partial<Mapping> = {}): Mapping => ({
  ...(mapping(1) as unknown as Mapping),
  protocol: "tcp",
  source: { port: 20017 },
  limits: { bandwidth: 1536 * 1024, connections: 20, burst: null },
  ...change,
});

it("asks only for what was filled in", () => {
  expect(toCreate({ ...emptyDraft("m1"), port: 22 })).toEqual({
    protocol: "tcp",
    target_client_id: "m1",
    target_port: 22,
  });
});

it("asks for everything that was filled in", () => {
  const draft = {
    ...emptyDraft("m1"),
    name: " web ",
    host: "10.0.0.5",
    port: 80,
    listen: "7000-7010",
    bandwidth: 1.5,
    unit: 1024,
    connections: 3,
    allow: ["192.0.2.0/24"],
    proxy: "v2" as const,
    compression: "zstd" as const,
  };
  expect(toCreate(draft)).toEqual({
    protocol: "tcp",
    target_client_id: "m1",
    name: "web",
    target_host: "10.0.0.5",
    target_port: 80,
    source: { port_range: "7000-7010" },
    limits: { bandwidth: 1536, connections: 3 },
    options: { allow_ips: ["192.0.2.0/24"], proxy_protocol: "v2", compression: "zstd" },
  });
});

it("gives a protocol only the fields it has", () => {
  const draft = { ...emptyDraft("m1"), port: 80, path: "/run/app.sock", username: "ann" };
  expect(toCreate({ ...draft, protocol: "unix" })).toEqual({
    protocol: "unix",
    target_client_id: "m1",
    target_path: "/run/app.sock",
  });
  const socks = { ...draft, protocol: "socks5" as const, password: "secret", proxy: "v1" as const };
  expect(toCreate(socks)).toEqual({
    protocol: "socks5",
    target_client_id: "m1",
    options: { username: "ann", password: "secret" },
  });
});

it("changes nothing when nothing was touched, whatever the mapping has", () => {
  for (let n = 1; n <= 8; n++) {
    const one = mapping(n) as unknown as Mapping;
    expect(toPatch(one, draftOf(one)), one.name).toEqual({});
  }
  const uneven = stored({ limits: { bandwidth: 1000, connections: null, burst: null } });
  expect(draftOf(uneven)).toMatchObject({ bandwidth: 1000, unit: 1 });
  expect(toPatch(uneven, draftOf(uneven))).toEqual({});
});

it("changes what was touched and nothing else", () => {
  const one = stored();
  const draft = draftOf(one);
  expect(draft).toMatchObject({ bandwidth: 1536, unit: 1024, listen: "20017" });
  expect(toPatch(one, { ...draft, bandwidth: 64 })).toEqual({ limits: { bandwidth: 65536 } });
  expect(toPatch(one, { ...draft, connections: "" })).toEqual({ limits: { connections: null } });
  expect(toPatch(one, { ...draft, listen: "" })).toEqual({ source: { port: 0 } });
  expect(toPatch(one, { ...draft, listen: "many" })).toEqual({ source: { port: "many" } });
  expect(toPatch(one, { ...draft, carrier: "mux" })).toEqual({ options: { carrier: "mux" } });
});

it("replaces a source as a whole, the machine that listens included", () => {
  const one = stored({ source: { client_id: "m2", port: 5000, bind: "::1" } });
  expect(toPatch(one, { ...draftOf(one), listen: "5001" })).toEqual({
    source: { client_id: "m2", port: 5001, bind: "::1" },
  });
});

it("takes the burst away with the bandwidth it belongs to", () => {
  const one = stored({ limits: { bandwidth: 1024, connections: null, burst: 4096 } });
  expect(toPatch(one, { ...draftOf(one), bandwidth: "" })).toEqual({
    limits: { bandwidth: null, burst: null },
  });
});

it("keeps a SOCKS5 password that was not typed again", () => {
  const base = stored();
  const one = stored({ protocol: "socks5", options: { ...base.options, username: "ann" } });
  expect(toPatch(one, { ...draftOf(one), username: "bob" })).toEqual({
    options: { username: "bob" },
  });
});

it("knows what is missing, and where the gateway's complaints belong", () => {
  expect(missing(emptyDraft())).toEqual(["target_client_id", "target_port"]);
  expect(missing({ ...emptyDraft("m1"), protocol: "unix" })).toEqual(["target_path"]);
  expect(missing({ ...emptyDraft("m1"), protocol: "socks5" })).toEqual([]);
  expect(fieldOfForm("options.allow_ips[2]")).toBe("options.allow_ips");
  expect(fieldOfForm("source.port_range")).toBe("source.port");
  expect(isAdvanced("options.allow_ips")).toBe(true);
  expect(isAdvanced("options.password")).toBe(false);
});
