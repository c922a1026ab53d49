// Nothing here yet: why, and the next command to type.

import { Code, Group, Stack, Text, ThemeIcon } from "@mantine/core";
import type { IconHome } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { CopyButton } from "./CopyButton";

interface EmptyStateProps {
  icon: typeof IconHome;
  title: string;
  children?: ReactNode;
  command?: string;
  action?: ReactNode;
}

export function EmptyState({ icon: Icon, title, children, command, action }: EmptyStateProps) {
  return (
    <Stack align="center" gap="xs" py={48} px="md" className="empty-state">
      <ThemeIcon size={44} radius="xl" variant="light" color="gray">
        <Icon size={22} stroke={1.6} />
      </ThemeIcon>
      <Text fw={600}>{title}</Text>
      {children && (
        <Text size="sm" c="dimmed" ta="center" maw={440}>
          {children}
        </Text>
      )}
      {command && <Command text={command} />}
      {action}
    </Stack>
  );
}

/** A command to copy, on one line that scrolls rather than breaks in the wrong place. */
export function Command({ text }: { text: string }) {
  return (
    <Group gap={4} wrap="nowrap" className="command" maw="100%">
      <Code className="command-text" tabIndex={0}>
        {text}
      </Code>
      <CopyButton text={text} />
    </Group>
  );
}
