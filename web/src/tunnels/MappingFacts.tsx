// Where a mapping comes in, where it goes, and how it treats what passes.

import { Paper, Title } from "@mantine/core";
import type { ReactNode } from "react";
import { useUsers } from "../access/queries";
import type { Mapping, MappingHealthCheck } from "../api/types";
import { useAccount } from "../app/account";
import { type Fact, Facts } from "../app/Facts";
import { bytes, duration, moment } from "../app/format";
import { type Translate, useT } from "../i18n";
import { PublicAddress, Target } from "./MappingTable";

export function MappingFacts({ mapping }: { mapping: Mapping }) {
  const t = useT();
  const account = useAccount();
  const users = useUsers().data;
  const { limits, options, source } = mapping;
  const none = t("mapping.unlimited");
  const rows: Fact[] = [
    [t("mapping.address"), <PublicAddress key="address" mapping={mapping} />],
    [t("mapping.target"), <Target key="target" mapping={mapping} withMachine />],
    [t("mapping.bandwidth"), limits.bandwidth === null ? none : `${bytes(limits.bandwidth)}/s`],
    [t("mapping.connections"), limits.connections ?? none],
  ];
  if (limits.burst !== null) rows.push([t("mapping.burst"), bytes(limits.burst)]);
  // Only what somebody chose; a list of defaults hides it.
  if (options.username) rows.push([t("field.username"), options.username]);
  if (options.allow_ips.length) rows.push([t("mapping.allow"), networks(options.allow_ips)]);
  if (options.deny_ips.length) rows.push([t("mapping.deny"), networks(options.deny_ips)]);
  if (options.proxy_protocol) rows.push([t("mapping.proxy"), t(`proxy.${options.proxy_protocol}`)]);
  if (options.accept_proxy_protocol) rows.push([t("mapping.acceptProxy"), t("facts.yes")]);
  if (options.compression !== "none")
    rows.push([t("mapping.compression"), t(`compression.${options.compression}`)]);
  if (options.e2e) rows.push([t("mapping.e2e"), t("facts.yes")]);
  if (options.carrier !== "auto")
    rows.push([t("mapping.carrier"), t(`carrier.${options.carrier}`)]);
  if (options.idle_timeout !== null) rows.push([t("mapping.idle"), duration(options.idle_timeout)]);
  if (source.bind) rows.push([t("mapping.bind"), <Mono key="bind">{source.bind}</Mono>]);
  if (mapping.group)
    rows.push([t("mapping.group"), `${mapping.group} · ${t(`balance.${mapping.balance}`)}`]);
  if (mapping.health) rows.push([t("mapping.health"), triedHow(mapping.health, t)]);
  if (account.role !== "user")
    rows.push([
      t("mapping.owner"),
      users?.find((one) => one.id === mapping.user_id)?.username ?? mapping.user_id.slice(0, 8),
    ]);
  rows.push([t("mapping.created"), moment(mapping.created_at)]);
  if (mapping.updated_at !== mapping.created_at)
    rows.push([t("mapping.updated"), moment(mapping.updated_at)]);
  return (
    <Paper p="md" h="100%" component="section" aria-labelledby="mapping-facts">
      <Title order={2} id="mapping-facts" mb="xs">
        {t("facts.title")}
      </Title>
      <Facts rows={rows} />
    </Paper>
  );
}

/** "GET /ok every 10s; down after 3 failures, up after 2" */
function triedHow(check: MappingHealthCheck, t: Translate): string {
  const what = check.type === "http" ? `GET ${check.path}` : t("health.connect");
  return t("health.rules", {
    what,
    every: duration(check.interval),
    fall: check.fall,
    rise: check.rise,
  });
}

const Mono = ({ children }: { children: ReactNode }) => <span className="mono">{children}</span>;

const networks = (all: readonly string[]): ReactNode => <Mono>{all.join(", ")}</Mono>;
