// Ctrl-K: any machine (opens a terminal, or its page), any tunnel and any page, by a few letters.

import {
  Spotlight,
  type SpotlightActionData,
  type SpotlightActionGroupData,
} from "@mantine/spotlight";
import {
  IconArrowsExchange,
  IconDeviceDesktop,
  IconSearch,
  IconTerminal2,
} from "@tabler/icons-react";
import { useMemo, useState } from "react";
import { useNavigate } from "react-router";
import { useT } from "../i18n";
import { canOpenTerminal } from "../machines/machine";
import { useMachines } from "../machines/queries";
import { useOpenTerminal } from "../terminal/useOpenTerminal";
import { publicAddress } from "../tunnels/mapping";
import { useMappings } from "../tunnels/queries";
import { useAccount } from "./account";
import { pagesFor } from "./nav";

export function Palette() {
  const t = useT();
  const navigate = useNavigate();
  const openTerminal = useOpenTerminal();
  const user = useAccount();
  const { data: machines } = useMachines();
  // Asked for when the palette is first opened, so that no page waits for them.
  const [opened, setOpened] = useState(false);
  const { data: mappings } = useMappings({ page_size: 200 }, { on: opened });

  const actions = useMemo<SpotlightActionGroupData[]>(() => {
    const terminals: SpotlightActionData[] = [];
    const pages: SpotlightActionData[] = [];
    for (const machine of machines ?? []) {
      const keywords = [
        machine.hostname,
        ...Object.entries(machine.labels).map(([k, v]) => `${k}=${v}`),
      ];
      if (canOpenTerminal(machine))
        terminals.push({
          id: `terminal-${machine.id}`,
          label: `${machine.name} · ${t("action.terminal")}`,
          description: machine.hostname,
          keywords,
          leftSection: <IconTerminal2 size={17} />,
          onClick: () => openTerminal(machine),
        });
      pages.push({
        id: `machine-${machine.id}`,
        label: machine.name,
        description: machine.hostname,
        keywords,
        leftSection: <IconDeviceDesktop size={17} />,
        onClick: () => navigate(`/machines/${machine.id}`),
      });
    }
    return [
      {
        group: t("palette.pages"),
        actions: pagesFor(user.role).map((page) => ({
          id: page.path,
          label: t(page.label),
          leftSection: <page.icon size={17} stroke={1.7} />,
          onClick: () => navigate(page.path),
        })),
      },
      { group: t("palette.terminals"), actions: terminals },
      { group: t("palette.machines"), actions: pages },
      {
        group: t("palette.tunnels"),
        actions: (mappings?.items ?? []).map((mapping) => ({
          id: `mapping-${mapping.id}`,
          label: mapping.name,
          description: publicAddress(mapping) ?? undefined,
          leftSection: <IconArrowsExchange size={17} />,
          onClick: () => navigate(`/tunnels/${mapping.id}`),
        })),
      },
    ];
  }, [machines, mappings, navigate, openTerminal, t, user.role]);

  return (
    <Spotlight
      actions={actions}
      nothingFound={t("palette.nothing")}
      overlayProps={{ blur: 1, backgroundOpacity: 0.35 }}
      limit={12}
      onSpotlightOpen={() => setOpened(true)}
      shortcut="mod + K"
      // A dialog's name, for those who hear it.
      title={t("palette.open")}
      classNames={{ header: "visually-hidden" }}
      // Also from inside a text field. A terminal has Ctrl-Shift-K: its Ctrl-K belongs to the shell.
      tagsToIgnore={[]}
      triggerOnContentEditable
      searchProps={{
        leftSection: <IconSearch size={17} aria-hidden />,
        placeholder: t("palette.placeholder"),
        "aria-label": t("palette.placeholder"),
      }}
    />
  );
}
