// Bytes each way: into the tunnel towards the machine, and back.

import { VisuallyHidden } from "@mantine/core";
import { IconArrowDown, IconArrowUp } from "@tabler/icons-react";
import { bytes } from "../app/format";
import { useT } from "../i18n";

/** `unit` is "/s" for rates and empty for totals. */
export function Flow({
  sent,
  received,
  unit = "",
}: {
  sent: number;
  received: number;
  unit?: "" | "/s";
}) {
  const t = useT();
  const parts = [
    ["sent", sent, t("mapping.sent"), IconArrowUp],
    ["received", received, t("mapping.received"), IconArrowDown],
  ] as const;
  return (
    <span className="flow tabular">
      {parts.map(([name, value, label, Icon]) => (
        <span
          key={name}
          className="flow-part"
          data-flow={name}
          data-idle={value < 1 || undefined}
          title={label}
        >
          <Icon size={12} aria-hidden />
          <VisuallyHidden>{label}</VisuallyHidden>
          {`${bytes(value)}${unit}`}
        </span>
      ))}
    </span>
  );
}
