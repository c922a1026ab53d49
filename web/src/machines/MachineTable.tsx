// The table of machines. Only the rows in sight exist in the page, so five thousand scroll as
// smoothly as five; the roles and row counts tell a screen reader about the rest.

import { VisuallyHidden } from "@mantine/core";
import { IconChevronRight, IconTerminal2 } from "@tabler/icons-react";
import { useVirtualizer } from "@tanstack/react-virtual";
import { memo, useRef } from "react";
import { Link } from "react-router";
import type { Machine } from "../api/types";
import { ago, moment } from "../app/format";
import { useT } from "../i18n";
import { useOpenTerminal } from "../terminal/useOpenTerminal";
import { Labels } from "./Labels";
import { Meter } from "./Meter";
import { canOpenTerminal, memoryPercent } from "./machine";
import { StatusDot } from "./StatusDot";

const ROW = 46;

export function MachineTable({ machines }: { machines: readonly Machine[] }) {
  const t = useT();
  const scroller = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count: machines.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW,
    overscan: 12,
    getItemKey: (index) => machines[index]?.id ?? index,
  });
  return (
    <div
      ref={scroller}
      className="machine-scroll"
      tabIndex={0}
      role="region"
      aria-label={t("machines.title")}
    >
      <div
        className="machine-table"
        role="table"
        aria-label={t("machines.title")}
        aria-rowcount={machines.length + 1}
      >
        <div className="machine-row machine-head" role="row" aria-rowindex={1}>
          <span role="columnheader">{t("machines.name")}</span>
          <span role="columnheader" className="wide-only">
            {t("machines.labels")}
          </span>
          <span role="columnheader" className="wide-only">
            {t("machines.os")}
          </span>
          <span role="columnheader" className="mid-only">
            {t("machines.cpu")}
          </span>
          <span role="columnheader" className="mid-only">
            {t("machines.memory")}
          </span>
          <span role="columnheader" className="mid-only">
            {t("machines.seen")}
          </span>
          <span role="columnheader" className="wide-only">
            {t("machines.version")}
          </span>
          <span role="columnheader">
            <VisuallyHidden>{t("machines.actions")}</VisuallyHidden>
          </span>
        </div>
        <div role="rowgroup" className="machine-body" style={{ height: rows.getTotalSize() }}>
          {rows.getVirtualItems().map((row) => {
            const machine = machines[row.index];
            return machine ? (
              <MachineRow key={row.key} machine={machine} index={row.index} top={row.start} />
            ) : null;
          })}
        </div>
      </div>
    </div>
  );
}

const MachineRow = memo(function MachineRow({
  machine,
  index,
  top,
}: {
  machine: Machine;
  index: number;
  top: number;
}) {
  const t = useT();
  const openTerminal = useOpenTerminal();
  const { static_info: facts, dynamic_info: load } = machine;
  const away = machine.status === "offline";
  const system = [facts.os, facts.os_version].filter(Boolean).join(" ") || "–";
  return (
    <div
      className="machine-row"
      role="row"
      aria-rowindex={index + 2}
      data-status={machine.status}
      style={{ transform: `translateY(${top}px)` }}
    >
      <span role="cell" className="machine-name">
        <StatusDot status={machine.status} />
        <span className="machine-names">
          <Link to={`/machines/${machine.id}`}>{machine.name}</Link>
          {machine.hostname !== machine.name && (
            <span className="machine-host">{machine.hostname}</span>
          )}
        </span>
      </span>
      <span role="cell" className="wide-only">
        <Labels labels={machine.labels} max={2} />
      </span>
      <span role="cell" className="wide-only machine-os" title={system}>
        {system}
      </span>
      <span role="cell" className="mid-only">
        <Meter label={t("machines.cpu")} value={away ? undefined : load.cpu_percent} />
      </span>
      <span role="cell" className="mid-only">
        <Meter label={t("machines.memory")} value={away ? undefined : memoryPercent(machine)} />
      </span>
      <span role="cell" className="mid-only" title={moment(machine.last_seen_at)}>
        {ago(machine.last_seen_at)}
      </span>
      <span role="cell" className="wide-only">
        {machine.version ?? "–"}
      </span>
      <span role="cell" className="machine-actions">
        {/* Plain elements: a row is made anew at every scrolled frame, and a component library's
            button, menu and tooltip cost more than all the rest of it. */}
        <button
          type="button"
          className="row-terminal"
          disabled={!canOpenTerminal(machine)}
          title={canOpenTerminal(machine) ? undefined : t(`status.${machine.status}.hint`)}
          onClick={() => openTerminal(machine)}
        >
          <IconTerminal2 size={15} aria-hidden />
          {t("action.terminal")}
        </button>
        <Link
          className="row-details"
          to={`/machines/${machine.id}`}
          aria-label={t("machines.more", { name: machine.name })}
        >
          <IconChevronRight size={16} aria-hidden />
        </Link>
      </span>
    </div>
  );
});
