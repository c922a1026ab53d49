// Ports that are lent with one-time codes: what runs, what is over, and one more.

import {
  Button,
  Code,
  Group,
  List,
  Loader,
  Paper,
  SegmentedControl,
  Text,
  Title,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconPlus, IconTicket } from "@tabler/icons-react";
import { useState } from "react";
import { EmptyState } from "../app/EmptyState";
import { ErrorState } from "../app/ErrorState";
import { PageHeader } from "../app/PageHeader";
import { Pages } from "../app/Pages";
import { useT } from "../i18n";
import { OfferDialog } from "./OfferDialog";
import { OfferTable } from "./OfferTable";
import { useOffers } from "./queries";

export default function OffersPage() {
  const t = useT();
  const [making, make] = useDisclosure(false);
  const [shown, setShown] = useState<"running" | "all">("running");
  const [page, setPage] = useState(1);
  const { data, error, refetch } = useOffers(shown === "running", page);
  return (
    <>
      <PageHeader title={t("offers.title")} note={t("offers.note")}>
        <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={make.open}>
          {t("offers.new")}
        </Button>
      </PageHeader>
      <Group mb="sm">
        <SegmentedControl
          size="xs"
          aria-label={t("mapping.status")}
          value={shown}
          onChange={(value) => {
            setShown(value as "running" | "all");
            setPage(1);
          }}
          data={[
            { value: "running", label: t("offers.running") },
            { value: "all", label: t("offers.all") },
          ]}
        />
      </Group>
      {error && <ErrorState error={error} onRetry={() => void refetch()} />}
      {!data && !error && <Loader size="sm" mx="auto" mt="xl" />}
      {data && data.items.length > 0 && <OfferTable offers={data.items} />}
      {data?.total === 0 && (
        <EmptyState
          icon={IconTicket}
          title={t(shown === "running" ? "offers.none" : "offers.noneEver")}
          command="underpass offer tcp 3306"
          action={
            <Button mt="xs" variant="default" onClick={make.open}>
              {t("offers.new")}
            </Button>
          }
        >
          {t("offers.noneText")}
        </EmptyState>
      )}
      <Pages of={data} value={page} onChange={setPage} />
      <Guests />
      {making && <OfferDialog onClose={make.close} />}
    </>
  );
}

/** What people without an account may, which only who starts the gateway decides. */
function Guests() {
  const t = useT();
  return (
    <Paper p="md" mt="lg" component="section" aria-labelledby="guests-title">
      <Title order={2} id="guests-title" mb={4}>
        {t("guests.title")}
      </Title>
      <Text size="sm" c="dimmed" mb="xs">
        {t("guests.lead")} <Code>underpass serve --guests accept</Code>
      </Text>
      <List size="sm" spacing={2}>
        {(["off", "accept", "all"] as const).map((mode) => (
          <List.Item key={mode}>
            <Code>{mode}</Code> {t(`guests.${mode}`)}
          </List.Item>
        ))}
      </List>
    </Paper>
  );
}
