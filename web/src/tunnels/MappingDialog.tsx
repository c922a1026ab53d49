// Makes a mapping, or changes one. What the gateway refuses is said at the field it is about.

import { Alert, Button, Collapse, Group, Modal, Stack, UnstyledButton } from "@mantine/core";
import { IconChevronRight } from "@tabler/icons-react";
import { type FormEvent, useId, useState } from "react";
import { useNavigate } from "react-router";
import { ApiError, explain } from "../api/client";
import type { Mapping } from "../api/types";
import { toastDone } from "../app/toasts";
import { useT } from "../i18n";
import { AdvancedFields } from "./AdvancedFields";
import {
  type Draft,
  draftOf,
  emptyDraft,
  fieldOfForm,
  isAdvanced,
  missing,
  toCreate,
  toPatch,
} from "./draft";
import { MainFields } from "./MainFields";
import { useMappingWrites } from "./queries";

export type Errors = Readonly<Record<string, string>>;

/** What both groups of fields work with; fields go by the API's names in `errors`. */
export interface FieldsProps {
  draft: Draft;
  errors: Errors;
  isNew: boolean;
  /** Takes over `change`; what was wrong with `field` may be right now. */
  onChange: (field: string, change: Partial<Draft>) => void;
}

/** Fields that have a place on the form; a complaint about another one is said above it. */
const FIELDS = new Set([
  "name",
  "target_client_id",
  "target_host",
  "target_port",
  "target_path",
  "source.port",
  "source.bind",
  "limits.bandwidth",
  "limits.connections",
  "options.username",
  "options.password",
  "options.allow_ips",
  "options.deny_ips",
  "options.proxy_protocol",
  "options.accept_proxy_protocol",
  "options.compression",
  "options.carrier",
  "options.idle_timeout",
]);

export function MappingDialog({
  mapping,
  machine,
  onClose,
}: {
  mapping?: Mapping;
  machine?: string;
  onClose: () => void;
}) {
  const t = useT();
  return (
    <Modal
      opened
      onClose={onClose}
      size="lg"
      title={mapping ? t("machines.editTitle", { name: mapping.name }) : t("tunnels.new")}
      closeButtonProps={{ "aria-label": t("action.close") }}
    >
      <MappingForm mapping={mapping} machine={machine} onClose={onClose} />
    </Modal>
  );
}

function MappingForm({
  mapping,
  machine,
  onClose,
}: {
  mapping?: Mapping;
  machine?: string;
  onClose: () => void;
}) {
  const t = useT();
  const navigate = useNavigate();
  const writes = useMappingWrites();
  const more = useId();
  // Compared with what the person saw, not with what somebody else made of it meanwhile.
  const [seen] = useState(mapping);
  const [draft, setDraft] = useState(() => (seen ? draftOf(seen) : emptyDraft(machine)));
  const [errors, setErrors] = useState<Errors>({});
  const [problem, setProblem] = useState<string | null>(null);
  const [advanced, setAdvanced] = useState(false);
  const [busy, setBusy] = useState(false);

  const onChange = (field: string, change: Partial<Draft>) => {
    setDraft((before) => ({ ...before, ...change }));
    setErrors(({ [field]: _, ...others }) => others);
    setProblem(null);
  };

  const refuse = (error: unknown) => {
    const field = error instanceof ApiError && error.field ? fieldOfForm(error.field) : "";
    if (!(error instanceof ApiError) || !FIELDS.has(field)) return setProblem(explain(error));
    // The message begins with the field's name in the API, which the label says better.
    const text = error.explanation.replace(/^[\w.]+(\[\d+\])?: /, "");
    setErrors({ [field]: text.charAt(0).toUpperCase() + text.slice(1) });
    if (isAdvanced(field)) setAdvanced(true);
  };

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const needed = missing(draft);
    if (needed.length)
      return setErrors(Object.fromEntries(needed.map((name) => [name, t("field.needed")])));
    setErrors({});
    setProblem(null);
    setBusy(true);
    try {
      const done = seen
        ? await writes.change(seen.id, toPatch(seen, draft))
        : await writes.create(toCreate(draft));
      toastDone(t(seen ? "action.saved" : "tunnels.made", { name: done.name }));
      onClose();
      if (!seen) navigate(`/tunnels/${done.id}`);
    } catch (error) {
      refuse(error);
      setBusy(false);
    }
  };

  const fields = { draft, errors, isNew: !seen, onChange };
  return (
    <form onSubmit={(event) => void submit(event)} noValidate>
      <Stack gap="sm">
        {problem && (
          <Alert color="red" variant="light" role="alert" py="xs">
            {problem}
          </Alert>
        )}
        <MainFields {...fields} />
        <UnstyledButton
          className="more-button"
          aria-expanded={advanced}
          aria-controls={more}
          onClick={() => setAdvanced(!advanced)}
        >
          <IconChevronRight size={14} aria-hidden />
          {t("tunnels.more")}
        </UnstyledButton>
        <Collapse expanded={advanced} id={more}>
          <AdvancedFields {...fields} />
        </Collapse>
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={onClose}>
            {t("action.cancel")}
          </Button>
          <Button type="submit" loading={busy}>
            {t(seen ? "action.save" : "tunnels.create")}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
