// What can be said about an offer without asking anybody: whose it is, what to type, how it stands.

import type { Offer } from "../api/types";

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Seconds; as the command line's defaults, with the longest that the gateway allows. */
export const CODE_TIMES = [10 * MINUTE, HOUR, 6 * HOUR, DAY] as const;
export const ACCESS_TIMES = [HOUR, 8 * HOUR, 2 * DAY, 30 * DAY] as const;

/** A login without an account is called so by the gateway; see the guests of `underpass serve`. */
export const isGuestName = (name: string | null | undefined): boolean =>
  !!name && /^guest-[0-9a-f]{8}$/.test(name);

export const isGuest = (offer: Pick<Offer, "user_id">): boolean =>
  offer.user_id.startsWith("guest:");

export const isRunning = ({ status }: Offer): boolean =>
  status === "waiting" || status === "accepted";

/** `tcp:127.0.0.1:3306` as people write it. */
export const shownTarget = (target: string): string => target.replace(/^(tcp|unix):/, "");

/** What the other person types; with the gateway's address where they may not have one set. */
export const acceptCommand = (code: string, server?: string): string =>
  `underpass accept ${code}${server ? ` --server ${server}` : ""}`;

/** Who made it, whoever accepted it (they give it back), and admins. */
export const mayEnd = (offer: Offer, me: { id: string; username: string; role: string }): boolean =>
  isRunning(offer) &&
  (me.role === "admin" || offer.user_id === me.id || offer.accepted_by === me.username);

export interface OfferDraft {
  machine: string | null;
  protocol: "tcp" | "unix";
  host: string;
  port: number | "";
  path: string;
  expires: number;
  access: number;
}

export const emptyOffer = (machine: string | null = null): OfferDraft => ({
  machine,
  protocol: "tcp",
  host: "127.0.0.1",
  port: "",
  path: "",
  expires: CODE_TIMES[0],
  access: ACCESS_TIMES[1],
});

/** Fields that have to be filled in and are not, by the API's names. */
export function missingIn(draft: OfferDraft): string[] {
  const missing: string[] = [];
  if (!draft.machine) missing.push("target_client_id");
  if (draft.protocol === "tcp" && draft.port === "") missing.push("target_port");
  if (draft.protocol === "unix" && !draft.path.trim()) missing.push("target_path");
  return missing;
}

export function toOffer(draft: OfferDraft): Record<string, unknown> {
  const target =
    draft.protocol === "tcp"
      ? { target_host: draft.host.trim() || "127.0.0.1", target_port: draft.port }
      : { target_path: draft.path.trim() };
  return {
    protocol: draft.protocol,
    target_client_id: draft.machine,
    ...target,
    expires_in: draft.expires,
    access_for: draft.access,
  };
}
