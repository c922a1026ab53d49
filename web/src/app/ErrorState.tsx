// A page or panel that could not be loaded: what happened, what to do, and a way to try again.

import { Alert, Button, Group, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { explain } from "../api/client";
import { useT } from "../i18n";

export function ErrorState({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const t = useT();
  return (
    <Alert
      color="red"
      variant="light"
      icon={<IconAlertTriangle size={18} />}
      title={t("error.title")}
      maw={560}
    >
      <Text size="sm">{explain(error)}</Text>
      {onRetry && (
        <Group mt="sm">
          <Button size="xs" variant="default" onClick={onRetry}>
            {t("action.tryAgain")}
          </Button>
        </Group>
      )}
    </Alert>
  );
}
