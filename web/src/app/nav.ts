// The pages of the console, in the order of the navigation; the command palette lists the same.

import {
  IconArrowsExchange,
  IconDeviceDesktop,
  IconHome,
  IconList,
  IconPlayerPlay,
  IconSettings,
  IconShieldCheck,
  IconTerminal2,
  IconTicket,
} from "@tabler/icons-react";
import type { Role } from "../api/types";
import type { Key } from "../i18n";

export interface PageEntry {
  path: string;
  label: Extract<Key, `nav.${string}`>;
  icon: typeof IconHome;
  roles?: readonly Role[];
}

export const PAGES: readonly PageEntry[] = [
  { path: "/", label: "nav.overview", icon: IconHome },
  { path: "/machines", label: "nav.machines", icon: IconDeviceDesktop },
  { path: "/terminal", label: "nav.terminal", icon: IconTerminal2 },
  { path: "/sessions", label: "nav.sessions", icon: IconList },
  { path: "/recordings", label: "nav.recordings", icon: IconPlayerPlay },
  { path: "/tunnels", label: "nav.tunnels", icon: IconArrowsExchange },
  { path: "/offers", label: "nav.offers", icon: IconTicket },
  { path: "/audit", label: "nav.audit", icon: IconShieldCheck, roles: ["admin", "auditor"] },
  { path: "/settings", label: "nav.settings", icon: IconSettings },
];

export const pagesFor = (role: Role): PageEntry[] =>
  PAGES.filter((page) => !page.roles || page.roles.includes(role));
