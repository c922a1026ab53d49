// All machines one may see: applications on top, then the table with its filter.

import { Button, Chip, CloseButton, Group, Loader, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconDeviceDesktop, IconPlus, IconSearch } from "@tabler/icons-react";
import { useDeferredValue, useMemo } from "react";
import { useSearchParams } from "react-router";
import { useIsAdmin } from "../app/account";
import { EmptyState } from "../app/EmptyState";
import { ErrorState } from "../app/ErrorState";
import { PageHeader } from "../app/PageHeader";
import { useT } from "../i18n";
import { AddMachine } from "./AddMachine";
import { MachineTable } from "./MachineTable";
import { labelsToText, matches, parseFilter } from "./machine";
import { PendingEnrolments } from "./PendingEnrolments";
import { useMachines } from "./queries";

export function MachinesPage() {
  const t = useT();
  const admin = useIsAdmin();
  const { data: machines, error, refetch } = useMachines();
  const [adding, add] = useDisclosure(false);
  const [parameters, setParameters] = useSearchParams();
  // In the address, so that a filtered list can be kept as a bookmark or sent to a colleague.
  const filter = parameters.get("q") ?? "";
  const deferred = useDeferredValue(filter);
  const shown = useMemo(() => {
    const wanted = parseFilter(deferred);
    return machines?.filter((machine) => matches(machine, wanted)) ?? [];
  }, [machines, deferred]);
  const setFilter = (q: string) => setParameters(q ? { q } : {}, { replace: true });
  const online = machines?.filter((machine) => machine.status !== "offline").length ?? 0;

  return (
    <div className="page-column">
      <PageHeader
        title={t("machines.title")}
        note={machines && t("machines.count", { online, total: machines.length })}
      >
        {admin && (
          <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={add.open}>
            {t("machines.add")}
          </Button>
        )}
      </PageHeader>
      <PendingEnrolments />
      {error && <ErrorState error={error} onRetry={() => void refetch()} />}
      {!machines && !error && <Loader size="sm" mx="auto" mt="xl" />}
      {machines && machines.length === 0 && (
        <EmptyState
          icon={IconDeviceDesktop}
          title={t("machines.emptyTitle")}
          command={admin ? undefined : `underpass agent --server ${window.location.origin}`}
          action={
            admin ? (
              <Button mt="xs" variant="default" onClick={add.open}>
                {t("machines.add")}
              </Button>
            ) : undefined
          }
        >
          {admin ? t("machines.emptyAdmin") : t("machines.emptyUser")}
        </EmptyState>
      )}
      {machines && machines.length > 0 && (
        <>
          <Group gap="xs" mb="sm" wrap="wrap">
            <TextInput
              className="filter"
              size="sm"
              placeholder={t("machines.filter")}
              aria-label={t("machines.filter")}
              leftSection={<IconSearch size={15} aria-hidden />}
              rightSection={
                filter && (
                  <CloseButton
                    size="sm"
                    aria-label={t("action.clear")}
                    onClick={() => setFilter("")}
                  />
                )
              }
              value={filter}
              onChange={(event) => setFilter(event.currentTarget.value)}
            />
            <LabelChips filter={filter} onFilter={setFilter} />
          </Group>
          {shown.length ? (
            <MachineTable machines={shown} />
          ) : (
            <EmptyState icon={IconSearch} title={t("machines.noMatch")}>
              {t("machines.noMatchHint")}
            </EmptyState>
          )}
        </>
      )}
      <AddMachine opened={adding} onClose={add.close} />
    </div>
  );
}

/** The labels in use, most frequent first, as switches of the filter. */
function LabelChips({ filter, onFilter }: { filter: string; onFilter: (filter: string) => void }) {
  const { data: machines } = useMachines();
  const common = useMemo(() => {
    const counts = new Map<string, number>();
    for (const machine of machines ?? [])
      for (const label of labelsToText(machine.labels))
        counts.set(label, (counts.get(label) ?? 0) + 1);
    return [...counts]
      .sort((a, b) => b[1] - a[1])
      .slice(0, 6)
      .map(([label]) => label);
  }, [machines]);
  const terms = filter.split(/\s+/).filter(Boolean);
  return (
    <Group gap={6}>
      {common.map((label) => {
        const on = terms.includes(label);
        return (
          <Chip
            key={label}
            size="xs"
            variant="outline"
            checked={on}
            onChange={() =>
              onFilter((on ? terms.filter((term) => term !== label) : [...terms, label]).join(" "))
            }
          >
            {label}
          </Chip>
        );
      })}
    </Group>
  );
}
