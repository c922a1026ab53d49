// Changing one's own password.

import { Alert, Button, Group, Paper, PasswordInput, Stack, Title } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { explain } from "../api/client";
import { MIN_PASSWORD } from "../app/SetupPage";
import { toastDone } from "../app/toasts";
import { useT } from "../i18n";
import { changePassword } from "./queries";

const EMPTY = { old: "", next: "", again: "" };

export function Password() {
  const t = useT();
  const [fields, setFields] = useState(EMPTY);
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (fields.next.length < MIN_PASSWORD)
      return setProblem(t("password.short", { count: MIN_PASSWORD }));
    if (fields.next !== fields.again) return setProblem(t("password.different"));
    setBusy(true);
    setProblem(null);
    try {
      await changePassword({ old: fields.old, new: fields.next });
      setFields(EMPTY);
      toastDone(t("password.changed"));
    } catch (error) {
      setProblem(explain(error));
    } finally {
      setBusy(false);
    }
  };
  const field = (name: keyof typeof EMPTY, label: string, autoComplete: string) => (
    <PasswordInput
      label={label}
      autoComplete={autoComplete}
      required
      withAsterisk={false}
      visibilityToggleButtonProps={{ "aria-label": t("field.showPassword") }}
      value={fields[name]}
      onChange={(event) => setFields({ ...fields, [name]: event.currentTarget.value })}
    />
  );
  return (
    <Paper p="md" component="section" aria-labelledby="password-title">
      <Title order={2} id="password-title" mb="xs">
        {t("password.title")}
      </Title>
      <form onSubmit={(event) => void submit(event)}>
        <Stack gap="sm" maw={360}>
          {problem && (
            <Alert color="red" variant="light" role="alert" py="xs">
              {problem}
            </Alert>
          )}
          {field("old", t("password.old"), "current-password")}
          {field("next", t("password.new"), "new-password")}
          {field("again", t("field.passwordAgain"), "new-password")}
          <Group>
            <Button type="submit" loading={busy}>
              {t("password.change")}
            </Button>
          </Group>
        </Stack>
      </form>
    </Paper>
  );
}
