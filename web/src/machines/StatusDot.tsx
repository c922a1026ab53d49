// A machine's state as a dot. Colour is never the only sign: the word is in its label and its title.

import type { MachineStatus } from "../api/types";
import { useT } from "../i18n";

export function StatusDot({ status }: { status: MachineStatus }) {
  const t = useT();
  return (
    <span
      className="status-dot"
      data-status={status}
      role="img"
      aria-label={t(`status.${status}`)}
      title={t(`status.${status}.hint`)}
    />
  );
}
