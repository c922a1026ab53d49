// The first admin. The code comes in the address that `underpass serve` printed; it is taken out of
// the address at once, so that it stays neither in the history nor in a screenshot.

import { Alert, Button, PasswordInput, Stack, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { Navigate, useNavigate, useSearchParams } from "react-router";
import { explain, get } from "../api/client";
import { useT } from "../i18n";
import { setUp } from "./account";
import { EntryPage } from "./EntryPage";

/** The gateway has the last word; this only saves a round trip. */
export const MIN_PASSWORD = 10;

export function SetupPage() {
  const t = useT();
  const queries = useQueryClient();
  const navigate = useNavigate();
  const [parameters] = useSearchParams();
  const [code, setCode] = useState(() => parameters.get("code") ?? "");
  const [codeFromLink] = useState(code !== "");
  const [username, setUsername] = useState("admin");
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const setup = useQuery({
    queryKey: ["setup"],
    queryFn: () => get<{ needed: boolean }>("/api/v1/setup"),
  });

  useEffect(() => {
    window.history.replaceState(null, "", "/setup");
  }, []);

  if (setup.data && !setup.data.needed && !busy) return <Navigate to="/" replace />;

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (password.length < MIN_PASSWORD)
      return setProblem(t("password.short", { count: MIN_PASSWORD }));
    if (password !== again) return setProblem(t("password.different"));
    setBusy(true);
    setProblem(null);
    try {
      await setUp(queries, { code: code.trim(), username: username.trim(), password });
      queries.setQueryData(["setup"], { needed: false });
      navigate("/machines", { replace: true });
    } catch (error) {
      setProblem(explain(error));
      setBusy(false);
    }
  };
  return (
    <EntryPage title={t("setup.title")} lead={t("setup.lead")}>
      <form onSubmit={(event) => void submit(event)}>
        <Stack gap="sm">
          {problem && (
            <Alert color="red" variant="light" role="alert" py="xs">
              {problem}
            </Alert>
          )}
          {!codeFromLink && (
            <TextInput
              label={t("setup.code")}
              description={t("setup.codeHint")}
              required
              withAsterisk={false}
              value={code}
              onChange={(event) => setCode(event.currentTarget.value)}
            />
          )}
          <TextInput
            label={t("field.username")}
            autoComplete="username"
            autoCapitalize="none"
            required
            withAsterisk={false}
            value={username}
            onChange={(event) => setUsername(event.currentTarget.value)}
          />
          <PasswordInput
            label={t("field.password")}
            description={t("password.rule", { count: MIN_PASSWORD })}
            autoComplete="new-password"
            required
            withAsterisk={false}
            autoFocus
            visibilityToggleButtonProps={{ "aria-label": t("field.showPassword") }}
            value={password}
            onChange={(event) => setPassword(event.currentTarget.value)}
          />
          <PasswordInput
            label={t("field.passwordAgain")}
            autoComplete="new-password"
            required
            withAsterisk={false}
            visibilityToggleButtonProps={{ "aria-label": t("field.showPassword") }}
            value={again}
            onChange={(event) => setAgain(event.currentTarget.value)}
          />
          <Button type="submit" loading={busy} mt="xs" fullWidth>
            {t("setup.submit")}
          </Button>
        </Stack>
      </form>
    </EntryPage>
  );
}
