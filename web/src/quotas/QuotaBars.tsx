// What is used of what a person may use: a bar for each limit that something counts against.

import { Text } from "@mantine/core";
import type { Quota } from "../api/types";
import { amount, moment } from "../app/format";
import { type Translate, useT } from "../i18n";
import { Meter } from "../machines/Meter";
import { LIMITS, type Limit, share } from "./quota";

/** All limits, or only `limits`, which then are a compact row. */
export function QuotaBars({ quota, limits }: { quota: Quota; limits?: readonly Limit[] }) {
  const t = useT();
  return (
    <dl className="quota" data-compact={limits ? true : undefined}>
      {(limits ?? LIMITS).map((limit) => {
        const used = share(quota, limit);
        return (
          <div key={limit.name} data-limit={limit.name}>
            <Text component="dt" size="sm" c="dimmed">
              {t(`quota.${limit.name}`)}
            </Text>
            <dd>
              <span className="tabular">{figures(quota, limit, t)}</span>
              {used !== undefined && <Meter label={t(`quota.${limit.name}`)} value={used} />}
            </dd>
            {limit.name === "monthly_traffic" && (
              <Text component="dd" size="xs" c="dimmed">
                {t("quota.renews", { time: moment(quota.usage.renews_at) })}
              </Text>
            )}
          </div>
        );
      })}
    </dl>
  );
}

/** "1.2 GB of 10 GB", "2, no limit", "1 MB/s" */
function figures(quota: Quota, { name, kind, used }: Limit, t: Translate): string {
  const show = (value: number) => {
    if (kind === "count") return String(value);
    return kind === "rate" ? `${amount(value)}/s` : amount(value);
  };
  const limit = quota[name];
  if (!used) return limit === null ? t("mapping.unlimited") : show(limit);
  const count = show(used(quota.usage));
  return limit === null
    ? t("quota.unlimited", { used: count })
    : t("quota.of", { used: count, limit: show(limit) });
}
