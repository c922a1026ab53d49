// All sessions one may see, the running ones first.

import { SegmentedControl } from "@mantine/core";
import { useState } from "react";
import { PageHeader } from "../app/PageHeader";
import { useT } from "../i18n";
import { SessionList } from "./SessionList";

const KINDS = { live: "active,detached,connecting", finished: "closed,error" } as const;

export function SessionsPage() {
  const t = useT();
  const [kind, setKind] = useState<keyof typeof KINDS>("live");
  return (
    <>
      <PageHeader title={t("sessions.title")}>
        <SegmentedControl
          size="xs"
          aria-label={t("sessions.title")}
          value={kind}
          onChange={(value) => setKind(value as keyof typeof KINDS)}
          data={[
            { value: "live", label: t("sessions.live") },
            { value: "finished", label: t("sessions.finished") },
          ]}
        />
      </PageHeader>
      <SessionList key={kind} filter={{ status: KINDS[kind] }} />
    </>
  );
}
