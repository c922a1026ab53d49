// The table of mappings, on their own page and (without the machine) on the page of a machine.

import { Badge, Table, Text } from "@mantine/core";
import type { ReactNode } from "react";
import { Link } from "react-router";
import { useUsers } from "../access/queries";
import type { Mapping } from "../api/types";
import { useAccount } from "../app/account";
import { CopyButton } from "../app/CopyButton";
import { ago, moment } from "../app/format";
import { useT } from "../i18n";
import { useMachineName, useMachines } from "../machines/queries";
import { StatusDot } from "../machines/StatusDot";
import { Flow } from "./Flow";
import { HealthBadge } from "./HealthBadge";
import { MappingDot } from "./MappingDot";
import { addressToCopy, listensAt, publicAddress, targetOf } from "./mapping";
import type { MappingRow } from "./queries";

export function MappingTable({
  mappings,
  compact = false,
}: {
  mappings: readonly MappingRow[];
  compact?: boolean;
}) {
  const t = useT();
  const account = useAccount();
  const users = useUsers().data;
  const nameOf = (id: string) => users?.find((user) => user.id === id)?.username ?? id.slice(0, 8);
  const others = account.role !== "user" && mappings.some((one) => one.user_id !== account.id);
  return (
    <Table.ScrollContainer minWidth={300} className="mapping-scroll">
      <Table highlightOnHover aria-label={t("tunnels.title")} className="mapping-table">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>{t("mapping.name")}</Table.Th>
            <Table.Th className="mapping-mid">{t("mapping.protocol")}</Table.Th>
            <Table.Th>{t("mapping.address")}</Table.Th>
            <Table.Th className="mapping-mid">
              {t(compact ? "mapping.target" : "mapping.machineTarget")}
            </Table.Th>
            <Table.Th className="mapping-mid">{t("mapping.rate")}</Table.Th>
            <Table.Th className="mapping-mid" ta="right">
              {t("mapping.open")}
            </Table.Th>
            {!compact && <Table.Th className="mapping-wide">{t("mapping.totals")}</Table.Th>}
            {others && !compact && (
              <Table.Th className="mapping-widest">{t("mapping.owner")}</Table.Th>
            )}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {mappings.map((mapping) => (
            <Row
              key={mapping.id}
              mapping={mapping}
              compact={compact}
              owner={others && !compact ? nameOf(mapping.user_id) : undefined}
            />
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function Row({
  mapping,
  compact,
  owner,
}: {
  mapping: MappingRow;
  compact: boolean;
  owner: string | undefined;
}) {
  const t = useT();
  const { stats, rate } = mapping;
  return (
    <Table.Tr data-testid="mapping" data-mapping-id={mapping.id} data-status={mapping.status}>
      <Table.Td>
        <span className="mapping-name">
          <MappingDot mapping={mapping} />
          <Link to={`/tunnels/${mapping.id}`}>{mapping.name}</Link>
          <HealthBadge mapping={mapping} size="xs" />
          {mapping.declared_by && <Declared mapping={mapping} size="xs" />}
        </span>
        {/* Where the columns for them have no room. */}
        <span className="mapping-narrow">
          {!compact && <MachineLink mapping={mapping} />}
          {rate && mapping.status === "active" && <Flow {...rate} unit="/s" />}
        </span>
        {mapping.health_status?.health === "down" && mapping.status === "active" && (
          <Text
            size="xs"
            className="mapping-error"
            title={mapping.health_status.reason ?? undefined}
          >
            {mapping.health_status.reason}
          </Text>
        )}
        {mapping.error && (
          <Text size="xs" className="mapping-error" title={mapping.error}>
            {mapping.error}
          </Text>
        )}
      </Table.Td>
      <Table.Td className="mapping-mid">
        <Badge size="sm" variant="default" radius="sm" className="protocol">
          {t(`protocol.${mapping.protocol}`)}
        </Badge>
      </Table.Td>
      <Table.Td>
        <PublicAddress mapping={mapping} />
      </Table.Td>
      <Table.Td className="mapping-mid">
        <Target mapping={mapping} withMachine={!compact} />
      </Table.Td>
      <Table.Td className="mapping-mid" data-testid="mapping-rate">
        {rate && mapping.status === "active" ? <Flow {...rate} unit="/s" /> : "–"}
      </Table.Td>
      <Table.Td ta="right" className="mapping-mid tabular" data-testid="mapping-open">
        {mapping.status === "disabled" ? "–" : stats.active}
      </Table.Td>
      {!compact && (
        <Table.Td className="mapping-wide" data-testid="mapping-totals">
          <Flow sent={stats.bytes_sent} received={stats.bytes_received} />
          <Text size="xs" c="dimmed" title={moment(stats.last_active_at)}>
            {t("mapping.totalConnections", { count: stats.total_connections })}
            {stats.last_active_at ? ` · ${ago(stats.last_active_at)}` : ""}
          </Text>
        </Table.Td>
      )}
      {owner !== undefined && <Table.Td className="mapping-widest">{owner}</Table.Td>}
    </Table.Tr>
  );
}

/** That a machine's file asks for it, so that it can't be changed here. */
export function Declared({ mapping, size }: { mapping: Mapping; size: "xs" | "lg" }) {
  const t = useT();
  const nameOf = useMachineName();
  return (
    <Badge
      size={size}
      variant="outline"
      color="gray"
      radius="sm"
      fw={550}
      className="protocol"
      title={t("mapping.declared.hint", { machine: nameOf(mapping.declared_by ?? "") })}
      data-testid="mapping-declared"
    >
      {t("mapping.declared")}
    </Badge>
  );
}

/** Where others connect to, with a button that copies it. */
export function PublicAddress({ mapping }: { mapping: Mapping }) {
  const t = useT();
  const nameOf = useMachineName();
  const address = publicAddress(mapping);
  const shown = address ?? listensAt(mapping, nameOf);
  if (!shown) return <>–</>;
  return (
    <span className="mapping-address">
      <span className="mono" title={shown}>
        {shown}
      </span>
      {address && (
        <CopyButton
          text={addressToCopy(mapping) ?? address}
          label={t("mapping.copyAddress", { name: mapping.name })}
        />
      )}
    </span>
  );
}

/** The machine, with a warning when it can't be reached, and what is opened there. */
export function Target({ mapping, withMachine }: { mapping: Mapping; withMachine: boolean }) {
  const t = useT();
  const parts: ReactNode[] = [];
  if (withMachine) parts.push(<MachineLink key="machine" mapping={mapping} />);
  const target = targetOf(mapping);
  parts.push(
    <span
      key="target"
      className={target ? "mono mapping-target" : "mapping-target"}
      title={target ?? undefined}
    >
      {target ?? t("mapping.anyTarget")}
    </span>,
  );
  return <span className="mapping-goal">{parts}</span>;
}

function MachineLink({ mapping }: { mapping: Mapping }) {
  const { data: machines } = useMachines();
  const machine = machines?.find((one) => one.id === mapping.target_client_id);
  return (
    <span className="mapping-machine">
      {machine && machine.status !== "online" && <StatusDot status={machine.status} />}
      <Link to={`/machines/${mapping.target_client_id}`}>
        {machine?.name ?? mapping.target_client_id.slice(0, 8)}
      </Link>
    </span>
  );
}
