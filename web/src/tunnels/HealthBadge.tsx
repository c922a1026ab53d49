// Whether a mapping's target answers the gateway's tries; the reason is in words beside it.

import { Alert, Badge } from "@mantine/core";
import { IconHeartBroken } from "@tabler/icons-react";
import type { Mapping } from "../api/types";
import { moment } from "../app/format";
import { useT } from "../i18n";

const COLOURS = { up: "teal", down: "red", unknown: "gray" } as const;

/** Nothing for a target that is not tried, or whose mapping takes nobody in. */
export function HealthBadge({ mapping, size }: { mapping: Mapping; size: "xs" | "lg" }) {
  const t = useT();
  const health = mapping.health_status;
  if (!health || mapping.status === "disabled") return null;
  return (
    <Badge
      size={size}
      variant="light"
      color={COLOURS[health.health]}
      radius="sm"
      fw={550}
      className="protocol"
      title={health.reason ?? t(`health.${health.health}.hint`)}
      data-testid="mapping-health"
      data-health={health.health}
    >
      {t(`health.${health.health}`)}
    </Badge>
  );
}

/** Why the target is down, what that means for connections, and where to look. */
export function HealthAlert({ mapping }: { mapping: Mapping }) {
  const t = useT();
  const health = mapping.health_status;
  if (health?.health !== "down" || mapping.status === "disabled") return null;
  return (
    <Alert
      color="orange"
      variant="light"
      mb="md"
      icon={<IconHeartBroken size={18} />}
      title={t("health.downTitle")}
    >
      {health.reason && <div className="mono">{health.reason}</div>}
      <div>
        {health.since ? `${t("health.since", { time: moment(health.since) })} ` : ""}
        {mapping.group ? t("health.others", { group: mapping.group }) : t("health.alone")}
      </div>
    </Alert>
  );
}
