// What is lent and borrowed: the target, who gave and who took it, until when, and its end.

import { Badge, Button, Table, Text, VisuallyHidden } from "@mantine/core";
import { modals } from "@mantine/modals";
import { Link } from "react-router";
import type { Offer, OfferStatus } from "../api/types";
import { useAccount } from "../app/account";
import { ago, moment } from "../app/format";
import { toastDone } from "../app/toasts";
import { useT } from "../i18n";
import { attempt } from "../machines/queries";
import { isGuest, isRunning, mayEnd, shownTarget } from "./offer";
import { Person } from "./Person";
import { useOfferWrites } from "./queries";

const COLOURS: Record<OfferStatus, string> = {
  waiting: "blue",
  accepted: "teal",
  expired: "gray",
  revoked: "gray",
};

export function OfferTable({ offers }: { offers: readonly Offer[] }) {
  const t = useT();
  return (
    <Table.ScrollContainer minWidth={300} className="offer-scroll">
      <Table highlightOnHover aria-label={t("offers.title")}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>{t("mapping.target")}</Table.Th>
            <Table.Th>{t("mapping.status")}</Table.Th>
            <Table.Th className="offer-mid">{t("offers.by")}</Table.Th>
            <Table.Th className="offer-mid">{t("offers.to")}</Table.Th>
            <Table.Th className="offer-wide">{t("offers.made")}</Table.Th>
            <Table.Th className="offer-mid">{t("offers.until")}</Table.Th>
            <Table.Th>
              <VisuallyHidden>{t("machines.actions")}</VisuallyHidden>
            </Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {offers.map((offer) => (
            <Row key={offer.id} offer={offer} />
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function Row({ offer }: { offer: Offer }) {
  const t = useT();
  const over = offer.ended_at ?? offer.expires_at;
  return (
    <Table.Tr data-testid="offer" data-offer-id={offer.id} data-status={offer.status}>
      <Table.Td>
        <span className="mapping-goal">
          {isGuest(offer) ? (
            <Text size="sm" fw={550}>
              {t("offers.theirMachine")}
            </Text>
          ) : (
            <Link to={`/machines/${offer.target_client_id}`}>{offer.machine}</Link>
          )}
          <span className="mono mapping-target" title={offer.target}>
            {shownTarget(offer.target)}
          </span>
        </span>
        {/* Where the columns for them have no room. */}
        <span className="offer-narrow">
          <Person name={offer.username} guest={isGuest(offer)} />
          {offer.accepted_by && <> → {<Person name={offer.accepted_by} />}</>}
        </span>
      </Table.Td>
      <Table.Td>
        <Badge
          size="sm"
          variant="light"
          color={COLOURS[offer.status]}
          radius="sm"
          className="protocol"
          title={t(`offer.${offer.status}.hint`)}
          data-testid="offer-status"
        >
          {t(`offer.${offer.status}`)}
        </Badge>
      </Table.Td>
      <Table.Td className="offer-mid">
        <Person name={offer.username} guest={isGuest(offer)} />
      </Table.Td>
      <Table.Td className="offer-mid">
        {offer.accepted_by ? <Person name={offer.accepted_by} /> : "–"}
      </Table.Td>
      <Table.Td className="offer-wide" title={moment(offer.created_at)}>
        {ago(offer.created_at)}
      </Table.Td>
      <Table.Td className="offer-mid tabular">{moment(over)}</Table.Td>
      <Table.Td ta="right">
        <End offer={offer} />
      </Table.Td>
    </Table.Tr>
  );
}

function End({ offer }: { offer: Offer }) {
  const t = useT();
  const account = useAccount();
  const writes = useOfferWrites();
  if (!isRunning(offer) || !mayEnd(offer, account)) return null;
  const borrowed = offer.user_id !== account.id && offer.accepted_by === account.username;
  const word = t(borrowed ? "offers.giveBack" : "offers.withdraw");
  const ask = () =>
    modals.openConfirmModal({
      title: t("offers.endTitle", { target: shownTarget(offer.target), machine: offer.machine }),
      children: t(offer.status === "waiting" ? "offers.endWaiting" : "offers.endUsed"),
      labels: { confirm: word, cancel: t("action.cancel") },
      confirmProps: { color: "red" },
      onConfirm: async () => {
        if (await attempt(t("offers.endFailed"), () => writes.end(offer.id)))
          toastDone(t("offers.ended"));
      },
    });
  return (
    <Button size="compact-xs" variant="subtle" color="red" onClick={ask}>
      {word}
    </Button>
  );
}
