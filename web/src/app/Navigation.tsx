// The left side: pages with what is going on behind them, the palette's button, and the account menu.

import {
  ActionIcon,
  AppShell,
  Badge,
  Group,
  Kbd,
  Menu,
  NavLink,
  Text,
  UnstyledButton,
  useMantineColorScheme,
} from "@mantine/core";
import { spotlight } from "@mantine/spotlight";
import {
  IconDots,
  IconGauge,
  IconLanguage,
  IconLogout,
  IconMoon,
  IconSearch,
  IconSun,
  IconSunMoon,
} from "@tabler/icons-react";
import { useQueryClient } from "@tanstack/react-query";
import { Link, useLocation } from "react-router";
import { setLanguage, useLanguage, useT } from "../i18n";
import { useEnrolments } from "../machines/queries";
import { useLayout } from "../terminal/layout-store";
import { signOut, useAccount } from "./account";
import { Logo } from "./Logo";
import { pagesFor } from "./nav";
import { toastFailure } from "./toasts";

export function Navigation() {
  const t = useT();
  const user = useAccount();
  const { pathname } = useLocation();
  const pending = useEnrolments().data?.length ?? 0;
  const tabs = useLayout().tabs.length;
  const counts: Record<string, { count: number; urgent: boolean }> = {
    "/machines": { count: pending, urgent: true },
    "/terminal": { count: tabs, urgent: false },
  };
  return (
    <AppShell.Navbar p="xs" component="nav" aria-label={t("nav.label")}>
      <Group px={8} py={6} mb={6} gap={9} visibleFrom="sm">
        <Logo size={24} />
        <Text fw={650} size="md">
          Underpass
        </Text>
      </Group>
      <UnstyledButton className="search-button" onClick={spotlight.open} mb="sm">
        <IconSearch size={15} aria-hidden />
        <Text size="sm" flex={1}>
          {t("palette.open")}
        </Text>
        <Kbd size="xs">Ctrl K</Kbd>
      </UnstyledButton>
      <div className="nav-links">
        {pagesFor(user.role).map((page) => {
          const active = page.path === "/" ? pathname === "/" : pathname.startsWith(page.path);
          const counter = counts[page.path];
          return (
            <NavLink
              key={page.path}
              component={Link}
              to={page.path}
              label={t(page.label)}
              leftSection={<page.icon size={17} stroke={1.7} aria-hidden />}
              active={active}
              aria-current={active ? "page" : undefined}
              rightSection={
                counter?.count ? (
                  <Badge
                    size="sm"
                    circle={counter.count < 10}
                    variant={counter.urgent ? "filled" : "default"}
                    color={counter.urgent ? "orange.8" : "gray"}
                    autoContrast={!counter.urgent}
                  >
                    {counter.count}
                  </Badge>
                ) : null
              }
            />
          );
        })}
      </div>
      <AccountMenu />
    </AppShell.Navbar>
  );
}

function AccountMenu() {
  const t = useT();
  const user = useAccount();
  const queries = useQueryClient();
  const language = useLanguage();
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const leave = async () => {
    try {
      await signOut(queries);
      new BroadcastChannel("underpass.account").postMessage("signed-out");
    } catch (error) {
      toastFailure(t("account.signOutFailed"), error);
    }
  };
  return (
    <Group className="account" justify="space-between" wrap="nowrap" gap={4}>
      <div className="account-name">
        <Text size="sm" fw={550} truncate>
          {user.username}
        </Text>
        <Text size="xs" c="dimmed">
          {t(`role.${user.role}`)}
        </Text>
      </div>
      <Menu position="top-end" withArrow width={200}>
        <Menu.Target>
          <ActionIcon aria-label={t("account.menu")}>
            <IconDots size={17} />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Label>{t("account.appearance")}</Menu.Label>
          {(["light", "dark", "auto"] as const).map((scheme) => {
            const Icon = { light: IconSun, dark: IconMoon, auto: IconSunMoon }[scheme];
            return (
              <Menu.Item
                key={scheme}
                leftSection={<Icon size={15} />}
                onClick={() => setColorScheme(scheme)}
                fw={colorScheme === scheme ? 650 : undefined}
              >
                {t(`appearance.${scheme}`)}
              </Menu.Item>
            );
          })}
          <Menu.Divider />
          <Menu.Item component={Link} to="/settings#quota" leftSection={<IconGauge size={15} />}>
            {t("quota.yours")}
          </Menu.Item>
          <Menu.Item
            leftSection={<IconLanguage size={15} />}
            onClick={() => void setLanguage(language === "en" ? "zh" : "en")}
          >
            {language === "en" ? "中文" : "English"}
          </Menu.Item>
          <Menu.Item leftSection={<IconLogout size={15} />} onClick={() => void leave()}>
            {t("account.signOut")}
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
    </Group>
  );
}
