// An address that leads nowhere.

import { Button } from "@mantine/core";
import { IconMapOff } from "@tabler/icons-react";
import { Link } from "react-router";
import { useT } from "../i18n";
import { EmptyState } from "./EmptyState";

export function NotFoundPage() {
  const t = useT();
  return (
    <EmptyState
      icon={IconMapOff}
      title={t("notFound.title")}
      action={
        <Button component={Link} to="/" variant="default" mt="xs">
          {t("notFound.back")}
        </Button>
      }
    >
      {t("notFound.text")}
    </EmptyState>
  );
}
