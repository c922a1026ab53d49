// The frame of the pages before sign-in: one quiet card in the middle.

import { Box, Group, Paper, Stack, Text, Title, UnstyledButton } from "@mantine/core";
import { type ReactNode, useEffect } from "react";
import { setLanguage, useLanguage } from "../i18n";
import { Logo } from "./Logo";

export function EntryPage({
  title,
  lead,
  children,
}: {
  title: string;
  lead?: string;
  children: ReactNode;
}) {
  const language = useLanguage();
  useEffect(() => {
    document.title = `${title} · Underpass`;
  }, [title]);
  return (
    <Box component="main" className="centred-page">
      <Stack w="100%" maw={380} gap="lg">
        <Group gap={10} justify="center">
          <Logo size={32} />
          <Text fw={680} size="xl">
            Underpass
          </Text>
        </Group>
        <Paper p="xl" radius="lg" shadow="sm">
          <Title order={1} mb={4}>
            {title}
          </Title>
          {lead && (
            <Text size="sm" c="dimmed" mb="md">
              {lead}
            </Text>
          )}
          {children}
        </Paper>
        <UnstyledButton
          mx="auto"
          fz="xs"
          c="dimmed"
          lang={language === "en" ? "zh-CN" : "en"}
          onClick={() => void setLanguage(language === "en" ? "zh" : "en")}
        >
          {language === "en" ? "中文" : "English"}
        </UnstyledButton>
      </Stack>
    </Box>
  );
}
