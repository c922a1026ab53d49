// The terminal page: tabs on top, the panes of the active one below, dividers between them. Every
// pane of every tab stays mounted; only those in sight draw.

import { Button } from "@mantine/core";
import { IconTerminal2 } from "@tabler/icons-react";
import { type PointerEvent, useRef } from "react";
import { useNavigate } from "react-router";
import { EmptyState } from "../app/EmptyState";
import { PageHeader } from "../app/PageHeader";
import { useT } from "../i18n";
import { type Placed, paneIds, place, setRatio } from "./layout";
import { changeLayout, useLayout } from "./layout-store";
import { Pane } from "./Pane";
import { TabBar } from "./TabBar";
import "@xterm/xterm/css/xterm.css";
import "./terminal.css";

export default function Terminals({ visible }: { visible: boolean }) {
  const t = useT();
  const navigate = useNavigate();
  const layout = useLayout();
  const area = useRef<HTMLDivElement>(null);
  if (!layout.tabs.length)
    return (
      <div className="page">
        <PageHeader title={t("nav.terminal")} />
        <EmptyState
          icon={IconTerminal2}
          title={t("terminal.emptyTitle")}
          command={`underpass --server ${window.location.origin} shell NAME`}
          action={
            <Button mt="xs" variant="default" onClick={() => navigate("/machines")}>
              {t("terminal.choose")}
            </Button>
          }
        >
          {t("terminal.emptyText")}
        </EmptyState>
      </div>
    );

  const active = layout.tabs.find((tab) => tab.id === layout.active);
  const placed: Placed = active ? place(active.root) : { panes: [], dividers: [] };
  return (
    <div className="terminals">
      {visible && <h1 className="visually-hidden">{t("nav.terminal")}</h1>}
      <TabBar />
      <div className="pane-area" ref={area}>
        {layout.tabs.flatMap((tab) =>
          paneIds(tab.root).map((id) => {
            const pane = layout.panes[id];
            if (!pane) return null;
            return (
              <Pane
                key={id}
                id={id}
                pane={pane}
                rect={placed.panes.find((one) => one.id === id)?.rect ?? null}
                pageVisible={visible}
                focused={tab.focused === id}
                alone={paneIds(tab.root).length === 1}
              />
            );
          }),
        )}
        {placed.dividers.map((divider) => (
          <Divider key={divider.id} divider={divider} area={area} />
        ))}
      </div>
    </div>
  );
}

interface DividerProps {
  divider: Placed["dividers"][number];
  area: React.RefObject<HTMLDivElement | null>;
}

function Divider({ divider, area }: DividerProps) {
  const t = useT();
  const row = divider.direction === "row";
  const { left, top, width, height } = divider.area;
  const place = (event: PointerEvent) => {
    const box = area.current?.getBoundingClientRect();
    if (!box || !event.currentTarget.hasPointerCapture(event.pointerId)) return;
    const at = row
      ? ((event.clientX - box.left) / box.width - left) / width
      : ((event.clientY - box.top) / box.height - top) / height;
    changeLayout((layout) => setRatio(layout, divider.id, at));
  };
  const nudge = (by: number) =>
    changeLayout((layout) => setRatio(layout, divider.id, divider.ratio + by));
  return (
    <div
      className="divider"
      data-direction={divider.direction}
      role="separator"
      tabIndex={0}
      aria-label={t("terminal.divider")}
      aria-orientation={row ? "vertical" : "horizontal"}
      aria-valuenow={Math.round(divider.ratio * 100)}
      style={
        row
          ? {
              left: `${(left + width * divider.ratio) * 100}%`,
              top: `${top * 100}%`,
              height: `${height * 100}%`,
            }
          : {
              top: `${(top + height * divider.ratio) * 100}%`,
              left: `${left * 100}%`,
              width: `${width * 100}%`,
            }
      }
      onPointerDown={(event) => event.currentTarget.setPointerCapture(event.pointerId)}
      onPointerMove={place}
      onKeyDown={(event) => {
        if (event.key === "ArrowLeft" || event.key === "ArrowUp") nudge(-0.05);
        if (event.key === "ArrowRight" || event.key === "ArrowDown") nudge(0.05);
      }}
    />
  );
}
