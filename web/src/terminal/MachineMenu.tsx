// The machines a new terminal can lead to, as the content of a menu.

import { Menu } from "@mantine/core";
import { useT } from "../i18n";
import { canOpenTerminal } from "../machines/machine";
import { useMachines } from "../machines/queries";

/** More would be a scroll list nobody reads; the palette finds the rest. */
const OFFERED = 30;

interface MachineMenuProps {
  /** The machine that is most likely wanted; it stands first. */
  first?: string;
  onChoose(machine: { id: string; name: string }): void;
}

export function MachineMenu({ first, onChoose }: MachineMenuProps) {
  const t = useT();
  const { data: machines } = useMachines();
  const usable = machines?.filter(canOpenTerminal) ?? [];
  const offered = [
    ...usable.filter((machine) => machine.id === first),
    ...usable.filter((machine) => machine.id !== first),
  ].slice(0, OFFERED);
  return (
    <>
      <Menu.Label>{t("machines.title")}</Menu.Label>
      <div className="machine-menu">
        {offered.map((machine) => (
          <Menu.Item key={machine.id} onClick={() => onChoose(machine)}>
            {machine.name}
          </Menu.Item>
        ))}
        {!offered.length && <Menu.Item disabled>{t("terminal.noneOnline")}</Menu.Item>}
      </div>
    </>
  );
}
