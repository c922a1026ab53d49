// Name and password. A gateway that has no admin yet says where the set-up link is.

import { Alert, Button, Code, PasswordInput, Stack, Text, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { Navigate, useSearchParams } from "react-router";
import { explain, get } from "../api/client";
import { useT } from "../i18n";
import { safeNext, signIn, useMe } from "./account";
import { EntryPage } from "./EntryPage";

export function SignInPage() {
  const t = useT();
  const queries = useQueryClient();
  const [parameters] = useSearchParams();
  const { data: user } = useMe();
  const setup = useQuery({
    queryKey: ["setup"],
    queryFn: () => get<{ needed: boolean }>("/api/v1/setup"),
  });
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  if (user) return <Navigate to={safeNext(parameters.get("next"))} replace />;
  if (setup.data?.needed)
    return (
      <EntryPage title={t("setup.neededTitle")}>
        <Text size="sm">
          {t("setup.neededText")} <Code>underpass serve</Code>
        </Text>
      </EntryPage>
    );

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await signIn(queries, username.trim(), password);
    } catch (error) {
      setProblem(explain(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <EntryPage title={t("signIn.title")} lead={t("signIn.lead")}>
      <form onSubmit={(event) => void submit(event)}>
        <Stack gap="sm">
          {problem && (
            <Alert color="red" variant="light" role="alert" py="xs">
              {problem}
            </Alert>
          )}
          <TextInput
            label={t("field.username")}
            autoComplete="username"
            autoCapitalize="none"
            spellCheck={false}
            required
            withAsterisk={false}
            data-autofocus
            autoFocus
            value={username}
            onChange={(event) => setUsername(event.currentTarget.value)}
          />
          <PasswordInput
            label={t("field.password")}
            autoComplete="current-password"
            required
            withAsterisk={false}
            visibilityToggleButtonProps={{ "aria-label": t("field.showPassword") }}
            value={password}
            onChange={(event) => setPassword(event.currentTarget.value)}
          />
          <Button type="submit" loading={busy} mt="xs" fullWidth>
            {t("signIn.submit")}
          </Button>
        </Stack>
      </form>
    </EntryPage>
  );
}
