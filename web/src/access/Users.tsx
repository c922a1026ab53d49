// The people who can sign in. Disabling one ends their sessions within seconds.

import {
  Alert,
  Badge,
  Button,
  Group,
  Modal,
  Paper,
  PasswordInput,
  Select,
  Stack,
  Table,
  TextInput,
  Title,
  VisuallyHidden,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { explain } from "../api/client";
import type { Role, User } from "../api/types";
import { useAccount } from "../app/account";
import { ago, moment } from "../app/format";
import { MIN_PASSWORD } from "../app/SetupPage";
import { toastDone } from "../app/toasts";
import { useT } from "../i18n";
import { attempt } from "../machines/queries";
import { QuotaCell } from "../quotas/QuotaCell";
import { changeUser, createUser, useUsers } from "./queries";

const ROLES: readonly Role[] = ["admin", "auditor", "user"];

export function Users() {
  const t = useT();
  const account = useAccount();
  const queries = useQueryClient();
  const { data } = useUsers();
  const [adding, add] = useDisclosure(false);
  const admin = account.role === "admin";
  const change = async (user: User, body: Parameters<typeof changeUser>[1]) => {
    if (await attempt(t("users.changeFailed"), () => changeUser(user.id, body)))
      toastDone(t("action.saved"));
    void queries.invalidateQueries({ queryKey: ["users"] });
  };
  return (
    <Paper p="md" component="section" aria-labelledby="users-title">
      <Group justify="space-between" mb="xs">
        <Title order={2} id="users-title">
          {t("users.title")}
        </Title>
        {admin && (
          <Button size="xs" variant="default" onClick={add.open}>
            {t("users.add")}
          </Button>
        )}
      </Group>
      <Table.ScrollContainer minWidth={680}>
        <Table aria-label={t("users.title")}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>{t("field.username")}</Table.Th>
              <Table.Th>{t("users.role")}</Table.Th>
              <Table.Th>{t("users.lastLogin")}</Table.Th>
              <Table.Th>{t("quota.monthly_traffic")}</Table.Th>
              <Table.Th>
                <VisuallyHidden>{t("machines.actions")}</VisuallyHidden>
              </Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {data?.map((user) => {
              const self = user.id === account.id;
              return (
                <Table.Tr key={user.id}>
                  <Table.Td fw={550}>
                    {user.username}{" "}
                    {user.disabled && (
                      <Badge size="xs" color="orange" variant="light" tt="none">
                        {t("users.disabled")}
                      </Badge>
                    )}
                  </Table.Td>
                  <Table.Td>
                    {admin && !self ? (
                      <Select
                        size="xs"
                        w={120}
                        allowDeselect={false}
                        aria-label={t("users.roleOf", { name: user.username })}
                        value={user.role}
                        data={ROLES.map((role) => ({ value: role, label: t(`role.${role}`) }))}
                        onChange={(role) => role && void change(user, { role: role as Role })}
                      />
                    ) : (
                      t(`role.${user.role}`)
                    )}
                  </Table.Td>
                  <Table.Td title={moment(user.last_login_at)}>
                    {user.last_login_at ? ago(user.last_login_at) : t("keys.never")}
                  </Table.Td>
                  <Table.Td>
                    <QuotaCell user={user} />
                  </Table.Td>
                  <Table.Td ta="right">
                    {admin && !self && (
                      <Button
                        size="compact-xs"
                        variant="subtle"
                        color={user.disabled ? undefined : "red"}
                        onClick={() => void change(user, { disabled: !user.disabled })}
                      >
                        {t(user.disabled ? "users.enable" : "users.disable")}
                      </Button>
                    )}
                  </Table.Td>
                </Table.Tr>
              );
            })}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <Modal
        opened={adding}
        onClose={add.close}
        title={t("users.add")}
        closeButtonProps={{ "aria-label": t("action.close") }}
      >
        {adding && <UserForm onDone={add.close} />}
      </Modal>
    </Paper>
  );
}

function UserForm({ onDone }: { onDone: () => void }) {
  const t = useT();
  const queries = useQueryClient();
  const [fields, setFields] = useState<{ username: string; password: string; role: Role }>({
    username: "",
    password: "",
    role: "user",
  });
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (fields.password.length < MIN_PASSWORD)
      return setProblem(t("password.short", { count: MIN_PASSWORD }));
    setBusy(true);
    try {
      await createUser({ ...fields, username: fields.username.trim() });
      toastDone(t("users.added", { name: fields.username }));
      onDone();
      void queries.invalidateQueries({ queryKey: ["users"] });
    } catch (error) {
      setProblem(explain(error));
      setBusy(false);
    }
  };
  return (
    <form onSubmit={(event) => void submit(event)}>
      <Stack gap="sm">
        {problem && (
          <Alert color="red" variant="light" role="alert" py="xs">
            {problem}
          </Alert>
        )}
        <TextInput
          label={t("field.username")}
          required
          withAsterisk={false}
          data-autofocus
          autoComplete="off"
          maxLength={64}
          value={fields.username}
          onChange={(event) => setFields({ ...fields, username: event.currentTarget.value })}
        />
        <PasswordInput
          label={t("field.password")}
          description={t("password.rule", { count: MIN_PASSWORD })}
          required
          withAsterisk={false}
          autoComplete="new-password"
          visibilityToggleButtonProps={{ "aria-label": t("field.showPassword") }}
          value={fields.password}
          onChange={(event) => setFields({ ...fields, password: event.currentTarget.value })}
        />
        <Select
          label={t("users.role")}
          description={t(`role.${fields.role}.hint`)}
          allowDeselect={false}
          value={fields.role}
          data={ROLES.map((role) => ({ value: role, label: t(`role.${role}`) }))}
          onChange={(role) => role && setFields({ ...fields, role: role as Role })}
        />
        <Group justify="flex-end">
          <Button type="submit" loading={busy}>
            {t("users.add")}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
