// The tabs, and the button that opens one more.

import { ActionIcon, Menu, Text, Tooltip } from "@mantine/core";
import { IconPlus, IconX } from "@tabler/icons-react";
import { useEffect } from "react";
import { useT } from "../i18n";
import { useCloseTab } from "./closing";
import { activate, paneIds, type Tab } from "./layout";
import { changeLayout, useLayout } from "./layout-store";
import { MachineMenu } from "./MachineMenu";
import { usePaneStates } from "./pane-state";
import { useOpenTerminal } from "./useOpenTerminal";

export function TabBar() {
  const t = useT();
  const layout = useLayout();
  return (
    <div className="tab-bar">
      <ul className="tabs" aria-label={t("terminal.tabs")}>
        {layout.tabs.map((tab) => (
          <TabHandle key={tab.id} tab={tab} active={tab.id === layout.active} />
        ))}
      </ul>
      <NewTab />
    </div>
  );
}

function TabHandle({ tab, active }: { tab: Tab; active: boolean }) {
  const t = useT();
  const { panes } = useLayout();
  const states = usePaneStates();
  const closeTab = useCloseTab();
  const ids = paneIds(tab.root);
  const pane = panes[tab.focused];
  const state = states[tab.focused];
  const name = state?.title || pane?.machineName || "";
  const phase = state?.view.phase ?? "idle";
  useEffect(() => {
    if (active) document.title = `${name} · Underpass`;
  }, [active, name]);
  return (
    <li className="tab" data-active={active || undefined}>
      <button
        type="button"
        aria-current={active || undefined}
        className="tab-name"
        onClick={() => changeLayout((layout) => activate(layout, tab.id))}
        onAuxClick={(event) => event.button === 1 && closeTab(tab.id)}
      >
        <span className="phase-dot" data-phase={phase} aria-hidden />
        <Text size="sm" truncate component="span">
          {pane && state?.title ? `${pane.machineName}: ${state.title}` : name}
        </Text>
        {ids.length > 1 && <span className="tab-count">{ids.length}</span>}
      </button>
      <ActionIcon
        size="xs"
        aria-label={t("terminal.closeTab", { name })}
        onClick={() => closeTab(tab.id)}
      >
        <IconX size={13} />
      </ActionIcon>
    </li>
  );
}

function NewTab() {
  const t = useT();
  const openTerminal = useOpenTerminal();
  return (
    <Menu position="bottom-start" withArrow width={220}>
      <Menu.Target>
        <Tooltip label={t("terminal.new")}>
          <ActionIcon size="md" aria-label={t("terminal.new")}>
            <IconPlus size={16} />
          </ActionIcon>
        </Tooltip>
      </Menu.Target>
      <Menu.Dropdown>
        <MachineMenu onChoose={openTerminal} />
      </Menu.Dropdown>
    </Menu>
  );
}
