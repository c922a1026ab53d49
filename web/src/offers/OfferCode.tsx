// A new offer's code, this once, with what the other person types; then whether they have.

import { Alert, Button, Group, Stack, Text } from "@mantine/core";
import { IconCheck, IconClock } from "@tabler/icons-react";
import type { OfferMade } from "../api/types";
import { CopyButton } from "../app/CopyButton";
import { Command } from "../app/EmptyState";
import { moment } from "../app/format";
import { useT } from "../i18n";
import { acceptCommand, shownTarget } from "./offer";
import { useOffer } from "./queries";

export function OfferCode({ made, onDone }: { made: OfferMade; onDone: () => void }) {
  const t = useT();
  const { data: offer } = useOffer(made);
  const used = offer.status === "accepted";
  return (
    <Stack gap="sm">
      <Text size="sm">
        {t("offers.lent", { target: shownTarget(made.target), machine: made.machine })}
      </Text>
      <Group gap={4} justify="center" className="offer-code">
        <span className="mono" data-testid="offer-code">
          {made.code}
        </span>
        <CopyButton text={made.code} label={t("offers.copyCode")} />
      </Group>
      <Text size="sm">{t("offers.theyType")}</Text>
      <Command text={acceptCommand(made.code)} />
      <Text size="sm" c="dimmed">
        {t("offers.guestTypes")}
      </Text>
      <Command text={acceptCommand(made.code, window.location.origin)} />
      <Alert
        variant="light"
        color={used ? "teal" : offer.status === "waiting" ? "gray" : "orange"}
        icon={used ? <IconCheck size={16} /> : <IconClock size={16} />}
        py="xs"
        role="status"
      >
        {used
          ? t("offers.usedBy", { name: offer.accepted_by ?? "", time: moment(offer.expires_at) })
          : offer.status === "waiting"
            ? t("offers.once", { time: moment(offer.expires_at) })
            : t(`offer.${offer.status}.hint`)}
      </Alert>
      <Group justify="flex-end">
        <Button onClick={onDone}>{t("action.done")}</Button>
      </Group>
    </Stack>
  );
}
