import { expect, it } from "vitest";
import type { Offer } from "../api/types";
import {
  acceptCommand,
  emptyOffer,
  isGuest,
  isGuestName,
  mayEnd,
  missingIn,
  shownTarget,
  toOffer,
} from "./offer";

const made = (change: Partial<Offer> = {}): Offer => ({
  id: "o1",
  user_id: "u1",
  username: "ann",
  target_client_id: "m1",
  machine: "db-1",
  target: "tcp:127.0.0.1:3306",
  status: "waiting",
  access_for: 28_800,
  created_at: "2026-01-01T00:00:00.000Z",
  expires_at: "2026-01-01T00:10:00.000Z",
  accepted_by: null,
  accepted_at: null,
  ended_at: null,
  ...change,
});

it("says what the other person types, with and without an account", () => {
  expect(acceptCommand("7K3M-9QXD-4TNB")).toBe("underpass accept 7K3M-9QXD-4TNB");
  expect(acceptCommand("7K3M-9QXD-4TNB", "https://gw.example.org")).toBe(
    "underpass accept 7K3M-9QXD-4TNB --server https://gw.example.org",
  );
  expect(shownTarget("tcp:[2001:db8::1]:80")).toBe("[2001:db8::1]:80");
  expect(shownTarget("unix:/run/app.sock")).toBe("/run/app.sock");
});

it("knows guests by their id, and by the name the gateway gives them", () => {
  expect(isGuest(made({ user_id: "guest:5f0c2a9e0b7dc550d632f0a5b9e7c1" }))).toBe(true);
  expect(isGuest(made({ username: "guest-5f0c2a9e" }))).toBe(false);
  expect(["guest-5f0c2a9e", "guest-bob", "guest-5f0c2a9e1", null].map(isGuestName)).toEqual([
    true,
    false,
    false,
    false,
  ]);
});

it("lets makers, takers and admins end what runs, and nobody what is over", () => {
  const ann = { id: "u1", username: "ann", role: "user" };
  const bob = { id: "u2", username: "bob", role: "user" };
  const auditor = { id: "u3", username: "eve", role: "auditor" };
  const admin = { id: "u4", username: "root", role: "admin" };
  const taken = made({ status: "accepted", accepted_by: "bob" });
  expect([ann, bob, auditor, admin].map((one) => mayEnd(taken, one))).toEqual([
    true,
    true,
    false,
    true,
  ]);
  expect(mayEnd(made(), bob)).toBe(false);
  for (const status of ["expired", "revoked"] as const)
    expect(mayEnd(made({ status }), admin)).toBe(false);
});

it("asks for a machine and a target, and sends only the target's own fields", () => {
  expect(missingIn(emptyOffer())).toEqual(["target_client_id", "target_port"]);
  expect(missingIn({ ...emptyOffer("m1"), protocol: "unix", path: " " })).toEqual(["target_path"]);
  expect(toOffer({ ...emptyOffer("m1"), port: 3306, host: " " })).toEqual({
    protocol: "tcp",
    target_client_id: "m1",
    target_host: "127.0.0.1",
    target_port: 3306,
    expires_in: 600,
    access_for: 28_800,
  });
  const socket = toOffer({ ...emptyOffer("m1"), protocol: "unix", path: "/run/app.sock" });
  expect(socket).toMatchObject({ target_path: "/run/app.sock" });
  expect(socket).not.toHaveProperty("target_port");
});
