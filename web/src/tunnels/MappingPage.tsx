// One mapping: where it comes in and goes, what passes right now, how it treats it; on and off.

import { Alert, Anchor, Badge, Button, Grid, Group, Loader, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { modals } from "@mantine/modals";
import { IconAlertTriangle, IconFileCode, IconPencil, IconTrash } from "@tabler/icons-react";
import { useState } from "react";
import { Link, useNavigate, useParams } from "react-router";
import type { Mapping } from "../api/types";
import { ErrorState } from "../app/ErrorState";
import { PageHeader } from "../app/PageHeader";
import { toastDone } from "../app/toasts";
import { useT } from "../i18n";
import { attempt, useMachineName } from "../machines/queries";
import { HealthAlert, HealthBadge } from "./HealthBadge";
import { MappingDialog } from "./MappingDialog";
import { MappingDot } from "./MappingDot";
import { MappingFacts } from "./MappingFacts";
import { Declared } from "./MappingTable";
import { useMapping, useMappingWrites, useMayChange } from "./queries";
import { Traffic } from "./Traffic";

export default function MappingPage() {
  const t = useT();
  const { id = "" } = useParams();
  const { data: mapping, error, refetch } = useMapping(id);
  if (error) return <ErrorState error={error} onRetry={() => void refetch()} />;
  if (!mapping) return <Loader size="sm" m="xl" />;
  return (
    <>
      <PageHeader title={mapping.name}>
        <Actions mapping={mapping} />
      </PageHeader>
      <Group gap="sm" mb="md">
        <Badge
          variant="default"
          size="lg"
          radius="sm"
          fw={550}
          leftSection={<MappingDot mapping={mapping} />}
          data-testid="mapping-status"
        >
          {t(`mapping.${mapping.status}`)}
        </Badge>
        <Badge variant="default" size="lg" radius="sm" fw={550}>
          {t(`protocol.${mapping.protocol}`)}
        </Badge>
        <HealthBadge mapping={mapping} size="lg" />
        {mapping.declared_by && <Declared mapping={mapping} size="lg" />}
        {mapping.status === "disabled" && (
          <Text size="sm" c="dimmed">
            {t("mapping.disabled.hint")}
          </Text>
        )}
      </Group>
      {mapping.status === "error" && (
        <Alert
          color="red"
          variant="light"
          mb="md"
          icon={<IconAlertTriangle size={18} />}
          title={t("mapping.error.hint")}
        >
          {mapping.error}
        </Alert>
      )}
      <HealthAlert mapping={mapping} />
      {mapping.declared_by && <DeclaredBy machine={mapping.declared_by} />}
      <Grid gap="md">
        <Grid.Col span={{ base: 12, lg: 7 }}>
          <Traffic mapping={mapping} />
        </Grid.Col>
        <Grid.Col span={{ base: 12, lg: 5 }}>
          <MappingFacts mapping={mapping} />
        </Grid.Col>
      </Grid>
    </>
  );
}

/** Who decides about a declared mapping, since nobody here does. */
function DeclaredBy({ machine }: { machine: string }) {
  const t = useT();
  const nameOf = useMachineName();
  return (
    <Alert
      color="gray"
      variant="light"
      mb="md"
      py="xs"
      icon={<IconFileCode size={18} />}
      data-testid="mapping-declared-by"
    >
      {t("mapping.declared.by")}{" "}
      <Anchor component={Link} to={`/machines/${machine}`} inherit>
        {nameOf(machine)}
      </Anchor>
      {t("mapping.declared.there")}
    </Alert>
  );
}

function Actions({ mapping }: { mapping: Mapping }) {
  const t = useT();
  const navigate = useNavigate();
  const writes = useMappingWrites();
  const mayChange = useMayChange();
  const [editing, edit] = useDisclosure(false);
  const [busy, setBusy] = useState(false);
  if (!mayChange(mapping)) return null;
  const disabled = mapping.status === "disabled";

  const toggle = async () => {
    setBusy(true);
    await attempt(t("tunnels.changeFailed"), () =>
      writes.change(mapping.id, { status: disabled ? "active" : "disabled" }),
    );
    setBusy(false);
  };
  const askToRemove = () =>
    modals.openConfirmModal({
      title: t("machines.removeTitle", { name: mapping.name }),
      children: t("tunnels.removeText"),
      labels: { confirm: t("tunnels.remove"), cancel: t("action.cancel") },
      confirmProps: { color: "red" },
      onConfirm: async () => {
        if (!(await attempt(t("tunnels.removeFailed"), () => writes.remove(mapping.id)))) return;
        toastDone(t("machines.removed", { name: mapping.name }));
        navigate("/tunnels", { replace: true });
      },
    });
  return (
    <>
      {!mapping.declared_by && (
        <Button
          variant="default"
          leftSection={<IconPencil size={15} aria-hidden />}
          onClick={edit.open}
        >
          {t("machines.edit")}
        </Button>
      )}
      <Button
        variant={disabled ? "filled" : "default"}
        loading={busy}
        onClick={() => void toggle()}
      >
        {t(disabled ? "users.enable" : "users.disable")}
      </Button>
      {!mapping.declared_by && (
        <Button
          variant="subtle"
          color="red"
          leftSection={<IconTrash size={15} aria-hidden />}
          onClick={askToRemove}
        >
          {t("tunnels.remove")}
        </Button>
      )}
      {editing && <MappingDialog mapping={mapping} onClose={edit.close} />}
    </>
  );
}
