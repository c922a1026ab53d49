// The line above a terminal: where it leads, how far away that is, and what can be done with it.

import {
  ActionIcon,
  Badge,
  Divider,
  Group,
  Menu,
  NumberInput,
  Popover,
  Radio,
  Stack,
  Switch,
  Text,
  Tooltip,
} from "@mantine/core";
import {
  IconAdjustments,
  IconColumns2,
  IconEye,
  IconLayoutRows,
  IconSearch,
  IconUsers,
  IconX,
} from "@tabler/icons-react";
import { useState } from "react";
import { useT } from "../i18n";
import type { View } from "./conversation";
import type { Direction, PaneInfo } from "./layout";
import { MachineMenu } from "./MachineMenu";
import { FONT_MAX, FONT_MIN, usePreferences } from "./preferences";
import { THEMES } from "./themes";

interface PaneHeaderProps {
  pane: PaneInfo;
  title: string;
  view: View;
  onSearch(): void;
  onSplit(direction: Direction, machine: { id: string; name: string }): void;
  onClose(): void;
}

export function PaneHeader({ pane, title, view, onSearch, onSplit, onClose }: PaneHeaderProps) {
  const t = useT();
  return (
    <header className="pane-header">
      <span className="phase-dot" data-phase={view.phase} aria-hidden />
      <Text size="xs" fw={620} truncate className="pane-machine">
        {pane.machineName}
      </Text>
      {/* From the shell: a text node, cleaned, and never anything else. */}
      <Text size="xs" c="dimmed" truncate flex={1} className="pane-title">
        {title}
      </Text>
      {pane.mode !== "own" && (
        <Badge
          size="xs"
          variant="light"
          color={pane.mode === "join" ? "orange" : "blue"}
          leftSection={<IconEye size={11} />}
        >
          {t(pane.mode === "join" ? "terminal.joined" : "terminal.watching")}
        </Badge>
      )}
      {view.others.length > 0 && (
        <Tooltip label={t("terminal.others", { names: view.others.join(", ") })}>
          <Badge size="xs" variant="light" color="blue" leftSection={<IconUsers size={11} />}>
            {view.others.length}
          </Badge>
        </Tooltip>
      )}
      <Tooltip label={t("terminal.rttHint")}>
        <Text size="xs" c="dimmed" className="tabular" data-testid="terminal-rtt">
          {view.phase === "attached" && view.rtt !== null
            ? `${Math.max(1, Math.round(view.rtt))} ms`
            : ""}
        </Text>
      </Tooltip>
      <Group gap={0} wrap="nowrap">
        <HeaderButton label={t("terminal.search")} onClick={onSearch} icon={IconSearch} />
        <SplitMenu
          label={t("terminal.splitRight")}
          icon={IconColumns2}
          first={pane.machineId}
          onChoose={(machine) => onSplit("row", machine)}
        />
        <SplitMenu
          label={t("terminal.splitDown")}
          icon={IconLayoutRows}
          first={pane.machineId}
          onChoose={(machine) => onSplit("column", machine)}
        />
        <Look />
        <HeaderButton label={t("terminal.close")} onClick={onClose} icon={IconX} />
      </Group>
    </header>
  );
}

function HeaderButton({
  label,
  onClick,
  icon: Icon,
}: {
  label: string;
  onClick: () => void;
  icon: typeof IconX;
}) {
  return (
    <Tooltip label={label}>
      <ActionIcon size="sm" aria-label={label} onClick={onClick}>
        <Icon size={14} stroke={1.8} />
      </ActionIcon>
    </Tooltip>
  );
}

/** A split may lead to another machine: two at once is what splits are for. */
function SplitMenu({
  label,
  icon: Icon,
  first,
  onChoose,
}: {
  label: string;
  icon: typeof IconX;
  first: string;
  onChoose: (machine: { id: string; name: string }) => void;
}) {
  return (
    <Menu position="bottom-end" withArrow width={220} returnFocus={false}>
      <Menu.Target>
        <Tooltip label={label}>
          <ActionIcon size="sm" aria-label={label}>
            <Icon size={14} stroke={1.8} />
          </ActionIcon>
        </Tooltip>
      </Menu.Target>
      <Menu.Dropdown>
        <MachineMenu first={first} onChoose={onChoose} />
      </Menu.Dropdown>
    </Menu>
  );
}

function Look() {
  const t = useT();
  const chosen = usePreferences();
  const [opened, setOpened] = useState(false);
  const toggle = () => setOpened((before) => !before);
  const toggles = ["confirmPaste", "remoteClipboard", "cursorBlink", "screenReader"] as const;
  return (
    <Popover
      opened={opened}
      onChange={setOpened}
      position="bottom-end"
      withArrow
      width={270}
      trapFocus
      returnFocus
    >
      <Popover.Target>
        <Tooltip label={t("terminal.look")}>
          <ActionIcon size="sm" aria-label={t("terminal.look")} onClick={toggle}>
            <IconAdjustments size={14} stroke={1.8} />
          </ActionIcon>
        </Tooltip>
      </Popover.Target>
      <Popover.Dropdown p="sm" aria-label={t("terminal.look")}>
        <Stack gap="sm">
          <Group justify="space-between">
            <Text size="sm">{t("look.fontSize")}</Text>
            <NumberInput
              size="xs"
              w={80}
              aria-label={t("look.fontSize")}
              min={FONT_MIN}
              max={FONT_MAX}
              clampBehavior="strict"
              value={chosen.fontSize}
              onChange={(value) =>
                typeof value === "number" && value >= FONT_MIN && chosen.change({ fontSize: value })
              }
            />
          </Group>
          <Divider />
          <Radio.Group
            size="xs"
            label={t("look.theme")}
            value={chosen.theme}
            onChange={(theme) => chosen.change({ theme })}
          >
            <Stack gap={7} mt={6}>
              {["auto", ...Object.keys(THEMES)].map((name) => (
                <Radio
                  key={name}
                  size="xs"
                  value={name}
                  label={
                    <Group gap={8} component="span">
                      <span className="swatch" data-theme={name} />
                      {THEMES[name]?.label ?? t("appearance.auto")}
                    </Group>
                  }
                />
              ))}
            </Stack>
          </Radio.Group>
          <Divider />
          {toggles.map((name) => (
            <Switch
              key={name}
              size="xs"
              label={t(`look.${name}`)}
              checked={chosen[name]}
              onChange={(event) => chosen.change({ [name]: event.currentTarget.checked })}
            />
          ))}
        </Stack>
      </Popover.Dropdown>
    </Popover>
  );
}
