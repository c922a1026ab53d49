import { expect, it } from "vitest";
import { mapping } from "../../mock/tunnels";
import type { Mapping } from "../api/types";
import { addressToCopy, listensAt, publicAddress, RateMeter, targetOf } from "./mapping";

const made = (change: Partial<Mapping> = {}): Mapping => ({
  ...(mapping(1) as unknown as Mapping),
  protocol: "tcp",
  source: { port: 20017 },
  public_url: "tcp://gw.example.org:20017",
  ...change,
});

it("shows an address as host and port, and copies what the other program wants", () => {
  expect(publicAddress(made())).toBe("gw.example.org:20017");
  expect(addressToCopy(made())).toBe("gw.example.org:20017");
  const six = made({ public_url: "udp://[2001:db8::1]:53", protocol: "udp" });
  expect(publicAddress(six)).toBe("[2001:db8::1]:53");
  const socks = made({ public_url: "socks5://gw.example.org:1080", protocol: "socks5" });
  expect(publicAddress(socks)).toBe("gw.example.org:1080");
  expect(addressToCopy(socks)).toBe("socks5://gw.example.org:1080");
});

it("shows both ends of a range, at the source and at the target", () => {
  const range = made({
    source: { port_range: "7000-7010" },
    public_url: "tcp://[2001:db8::1]:7000",
    target_host: "10.0.0.5",
    target_port: 9000,
  });
  expect(publicAddress(range)).toBe("[2001:db8::1]:7000-7010");
  expect(targetOf(range)).toBe("10.0.0.5:9000-9010");
});

it("says where a machine listens instead of the gateway", () => {
  const there = made({ source: { client_id: "abc", port: 5432 }, public_url: null });
  expect(publicAddress(there)).toBeNull();
  expect(listensAt(there, (id) => `name-of-${id}`)).toBe("name-of-abc:5432");
  expect(listensAt(made(), String)).toBeNull();
});

it("names the target of every protocol", () => {
  expect(targetOf(made({ target_host: null, target_port: 22 }))).toBe("127.0.0.1:22");
  expect(targetOf(made({ target_host: "::1", target_port: 22 }))).toBe("[::1]:22");
  expect(targetOf(made({ protocol: "unix", target_path: "/run/app.sock" }))).toBe("/run/app.sock");
  expect(targetOf(made({ protocol: "socks5" }))).toBeNull();
});

it("makes rates of totals, over the time that really passed", () => {
  const meter = new RateMeter();
  expect(meter.take("a", { sent: 1000, received: 0 }, 0)).toBeNull();
  expect(meter.take("a", { sent: 5000, received: 8000 }, 4000)).toEqual({
    sent: 1000,
    received: 2000,
  });
  // An answer right behind the other one says nothing new, and is not counted twice.
  expect(meter.take("a", { sent: 5600, received: 8000 }, 4400)).toEqual({
    sent: 1000,
    received: 2000,
  });
  expect(meter.take("a", { sent: 6000, received: 8000 }, 6000)).toEqual({ sent: 500, received: 0 });
});

it("gives no rate over a time nobody looked, nor for totals that shrank", () => {
  const meter = new RateMeter();
  meter.take("a", { sent: 1, received: 1 }, 0);
  expect(meter.take("a", { sent: 9e9, received: 1 }, 60_000)).toBeNull();
  expect(meter.take("a", { sent: 5, received: 1 }, 62_000)).toBeNull();
  meter.forget(200_000);
  expect(meter.take("a", { sent: 10, received: 1 }, 202_000)).toBeNull();
});
