// The title line of a page: a heading, what it counts, and the page's main actions on the right.

import { Group, Text, Title } from "@mantine/core";
import { type ReactNode, useEffect } from "react";

export function PageHeader({
  title,
  note,
  children,
}: {
  title: string;
  note?: string;
  children?: ReactNode;
}) {
  useEffect(() => {
    document.title = `${title} · Underpass`;
  }, [title]);
  return (
    <Group justify="space-between" mb="md" gap="sm" mih={36}>
      <Group gap="sm" align="baseline">
        <Title order={1}>{title}</Title>
        {note && (
          <Text size="sm" c="dimmed">
            {note}
          </Text>
        )}
      </Group>
      <Group gap="xs">{children}</Group>
    </Group>
  );
}
