// Who did something, with a mark on those without an account.

import { Badge, Group } from "@mantine/core";
import { useT } from "../i18n";
import { isGuestName } from "./offer";

/** A name, marked where there is no account behind it. */
export function Person({ name, guest = isGuestName(name) }: { name: string; guest?: boolean }) {
  const t = useT();
  return (
    <Group component="span" gap={6} wrap="nowrap" display="inline-flex">
      {name}
      {guest && (
        <Badge
          size="xs"
          variant="outline"
          color="gray"
          radius="sm"
          className="protocol"
          title={t("offers.guestHint")}
          data-testid="guest"
        >
          {t("offers.guest")}
        </Badge>
      )}
    </Group>
  );
}
