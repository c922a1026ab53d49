// A person's traffic of this month in the list of users, with the way to the rest of their quota.

import { UnstyledButton, VisuallyHidden } from "@mantine/core";
import { useInViewport } from "@mantine/hooks";
import { useState } from "react";
import type { User } from "../api/types";
import { useIsAdmin } from "../app/account";
import { amount } from "../app/format";
import { useT } from "../i18n";
import { Meter } from "../machines/Meter";
import { QuotaDialog } from "./QuotaDialog";
import { useQuota } from "./queries";
import { LIMITS, type Limit, share } from "./quota";

const TRAFFIC = LIMITS[0] as Limit;

export function QuotaCell({ user }: { user: User }) {
  const t = useT();
  const admin = useIsAdmin();
  // Every quota is a question of its own, so only those that can be seen are asked for.
  const { ref, inViewport } = useInViewport();
  const [open, setOpen] = useState(false);
  const { data } = useQuota(user.id, inViewport);
  const limit = data?.monthly_traffic ?? null;
  return (
    <div ref={ref}>
      <UnstyledButton className="quota-cell" onClick={() => setOpen(true)}>
        <VisuallyHidden>{t("quota.title", { name: user.username })}: </VisuallyHidden>
        <span className="tabular">
          {data ? amount(data.usage.traffic) : "–"}
          {limit !== null && ` / ${amount(limit)}`}
        </span>
        {data && limit !== null && (
          <Meter label={t("quota.monthly_traffic")} value={share(data, TRAFFIC)} />
        )}
      </UnstyledButton>
      {open && <QuotaDialog user={user} mayChange={admin} onClose={() => setOpen(false)} />}
    </div>
  );
}
