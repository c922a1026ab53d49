// All mappings one may see: what comes in here comes out there, and how much of it right now.

import { Button, CloseButton, Group, Loader, SegmentedControl, TextInput } from "@mantine/core";
import { useDebouncedValue, useDisclosure } from "@mantine/hooks";
import { IconArrowsExchange, IconPlus, IconSearch } from "@tabler/icons-react";
import { useEffect, useState } from "react";
import { useSearchParams } from "react-router";
import type { MappingStatus } from "../api/types";
import { EmptyState } from "../app/EmptyState";
import { ErrorState } from "../app/ErrorState";
import { PageHeader } from "../app/PageHeader";
import { Pages } from "../app/Pages";
import { useT } from "../i18n";
import { TunnelQuota } from "../quotas/YourQuota";
import { MappingDialog } from "./MappingDialog";
import { MappingTable } from "./MappingTable";
import { useMappings } from "./queries";

const STATES = ["all", "active", "disabled", "error"] as const;

export default function TunnelsPage() {
  const t = useT();
  const [making, make] = useDisclosure(false);
  const [parameters, setParameters] = useSearchParams();
  const [text, setText] = useState(parameters.get("q") ?? "");
  const [wanted] = useDebouncedValue(text.trim(), 200);
  const [page, setPage] = useState(1);
  const state = STATES.find((one) => one === parameters.get("status")) ?? "all";
  const status: MappingStatus | undefined = state === "all" ? undefined : state;
  const { data, error, refetch } = useMappings(
    { q: wanted || undefined, status, page },
    { live: true },
  );

  // In the address, so that a filtered list can be kept as a bookmark or sent to a colleague.
  useEffect(() => {
    setParameters(
      (before) => {
        if (wanted) before.set("q", wanted);
        else before.delete("q");
        return before;
      },
      { replace: true },
    );
  }, [wanted, setParameters]);
  const setState = (next: string) => {
    setPage(1);
    setParameters(
      (before) => {
        if (next === "all") before.delete("status");
        else before.set("status", next);
        return before;
      },
      { replace: true },
    );
  };
  const filtered = Boolean(wanted || status);
  const nothing = data?.total === 0;

  return (
    <>
      <PageHeader
        title={t("tunnels.title")}
        note={data && !nothing ? t("tunnels.count", { total: data.total }) : undefined}
      >
        <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={make.open}>
          {t("tunnels.new")}
        </Button>
      </PageHeader>
      <TunnelQuota />
      {error && <ErrorState error={error} onRetry={() => void refetch()} />}
      {!data && !error && <Loader size="sm" mx="auto" mt="xl" />}
      {data && !(nothing && !filtered) && (
        <Group gap="xs" mb="sm" wrap="wrap">
          <TextInput
            className="filter"
            placeholder={t("tunnels.filter")}
            aria-label={t("tunnels.filter")}
            leftSection={<IconSearch size={15} aria-hidden />}
            rightSection={
              text && (
                <CloseButton size="sm" aria-label={t("action.clear")} onClick={() => setText("")} />
              )
            }
            value={text}
            onChange={(event) => {
              setText(event.currentTarget.value);
              setPage(1);
            }}
          />
          <SegmentedControl
            size="xs"
            aria-label={t("mapping.status")}
            value={state}
            onChange={setState}
            data={STATES.map((one) => ({
              value: one,
              label: t(one === "all" ? "tunnels.all" : `mapping.${one}`),
            }))}
          />
        </Group>
      )}
      {data && data.items.length > 0 && <MappingTable mappings={data.items} />}
      {nothing && filtered && (
        <EmptyState icon={IconSearch} title={t("tunnels.noMatch")}>
          {t("tunnels.noMatchHint")}
        </EmptyState>
      )}
      {nothing && !filtered && (
        <EmptyState
          icon={IconArrowsExchange}
          title={t("tunnels.none")}
          command="underpass expose tcp 22"
          action={
            <Button mt="xs" variant="default" onClick={make.open}>
              {t("tunnels.new")}
            </Button>
          }
        >
          {t("tunnels.noneText")}
        </EmptyState>
      )}
      <Pages of={data} value={page} onChange={setPage} />
      {making && <MappingDialog onClose={make.close} />}
    </>
  );
}
