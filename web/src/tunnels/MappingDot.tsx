// A mapping's state as a dot. Colour is never the only sign: the word is in its label and its title.

import type { Mapping } from "../api/types";
import { useT } from "../i18n";

export function MappingDot({ mapping }: { mapping: Pick<Mapping, "status" | "error"> }) {
  const t = useT();
  const { status, error } = mapping;
  return (
    <span
      className="status-dot"
      data-status={status}
      role="img"
      aria-label={t(`mapping.${status}`)}
      title={error ?? t(`mapping.${status}.hint`)}
    />
  );
}
