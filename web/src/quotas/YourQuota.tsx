// One's own quota: all of it in the settings, and what concerns tunnels on their page.

import { Loader, Paper, Text, Title } from "@mantine/core";
import { useEffect, useRef } from "react";
import { useLocation } from "react-router";
import { useAccount } from "../app/account";
import { ErrorState } from "../app/ErrorState";
import { useT } from "../i18n";
import { QuotaBars } from "./QuotaBars";
import { useQuota } from "./queries";
import { isLimited, shownWithTunnels } from "./quota";

export function YourQuota() {
  const t = useT();
  const { id, role } = useAccount();
  const { data, error, refetch } = useQuota(id);
  const { hash } = useLocation();
  const known = data !== undefined;
  const section = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (hash === "#quota" && known) section.current?.scrollIntoView();
  }, [hash, known]);
  return (
    <Paper p="md" component="section" aria-labelledby="quota-title" ref={section}>
      <Title order={2} id="quota-title" mb="xs">
        {t("quota.yours")}
      </Title>
      {error && <ErrorState error={error} onRetry={() => void refetch()} />}
      {!data && !error && <Loader size="sm" />}
      {data && (
        <>
          <Text size="sm" c="dimmed" mb="xs">
            {t(isLimited(data) ? "quota.limited" : "quota.free")}
            {isLimited(data) && role !== "admin" ? ` ${t("quota.ask")}` : ""}
          </Text>
          <QuotaBars quota={data} />
        </>
      )}
    </Paper>
  );
}

/** Nothing for who has no such limit. */
export function TunnelQuota() {
  const { id } = useAccount();
  const { data } = useQuota(id);
  const limits = data ? shownWithTunnels(data) : [];
  if (!data || !limits.length) return null;
  return (
    <Paper p="sm" mb="sm" data-testid="tunnel-quota">
      <QuotaBars quota={data} limits={limits} />
    </Paper>
  );
}
