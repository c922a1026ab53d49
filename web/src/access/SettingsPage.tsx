// One's own password and API keys; for admins also the people.

import { Stack } from "@mantine/core";
import { useAccount } from "../app/account";
import { PageHeader } from "../app/PageHeader";
import { useT } from "../i18n";
import { YourQuota } from "../quotas/YourQuota";
import { ApiKeys } from "./ApiKeys";
import { Password } from "./Password";
import { Users } from "./Users";

export function SettingsPage() {
  const t = useT();
  const { role } = useAccount();
  return (
    <>
      <PageHeader title={t("nav.settings")} />
      <Stack gap="md" maw={860}>
        {role !== "user" && <Users />}
        <YourQuota />
        <ApiKeys />
        <Password />
      </Stack>
    </>
  );
}
