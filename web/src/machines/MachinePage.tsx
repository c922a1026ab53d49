// One machine: what it is, how it is doing right now, what may be changed, its sessions and events.

import { Badge, Button, Grid, Group, Loader, Paper, Text, Title } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconPencil, IconTerminal2 } from "@tabler/icons-react";
import { useParams } from "react-router";
import { useAccount } from "../app/account";
import { ErrorState } from "../app/ErrorState";
import { PageHeader } from "../app/PageHeader";
import { EventList } from "../audit/EventList";
import { useT } from "../i18n";
import { SessionList } from "../sessions/SessionList";
import { useOpenTerminal } from "../terminal/useOpenTerminal";
import { MachineTunnels } from "../tunnels/MachineTunnels";
import { EditMachine } from "./EditMachine";
import { Labels } from "./Labels";
import { MachineCharts } from "./MachineCharts";
import { MachineFacts } from "./MachineFacts";
import { canOpenTerminal } from "./machine";
import { useMachine } from "./queries";
import { StatusDot } from "./StatusDot";

export default function MachinePage() {
  const t = useT();
  const { id = "" } = useParams();
  const { role } = useAccount();
  const { data: machine, error, refetch } = useMachine(id);
  const openTerminal = useOpenTerminal();
  const [editing, edit] = useDisclosure(false);
  if (error) return <ErrorState error={error} onRetry={() => void refetch()} />;
  if (!machine) return <Loader size="sm" m="xl" />;
  return (
    <>
      <PageHeader
        title={machine.name}
        note={machine.hostname === machine.name ? undefined : machine.hostname}
      >
        {role === "admin" && (
          <Button
            variant="default"
            leftSection={<IconPencil size={15} aria-hidden />}
            onClick={edit.open}
          >
            {t("machines.edit")}
          </Button>
        )}
        <Button
          leftSection={<IconTerminal2 size={16} aria-hidden />}
          disabled={!canOpenTerminal(machine)}
          onClick={() => openTerminal(machine)}
        >
          {t("action.terminal")}
        </Button>
      </PageHeader>
      <Group gap="sm" mb="md">
        <Badge
          variant="default"
          size="lg"
          radius="sm"
          tt="none"
          fw={550}
          leftSection={<StatusDot status={machine.status} />}
        >
          {t(`status.${machine.status}`)}
        </Badge>
        <Labels labels={machine.labels} max={99} />
        {machine.status !== "online" && (
          <Text size="sm" c="dimmed">
            {t(`status.${machine.status}.hint`)}
          </Text>
        )}
      </Group>
      <Grid gap="md">
        <Grid.Col span={{ base: 12, lg: 7 }}>
          <MachineCharts machine={machine} />
        </Grid.Col>
        <Grid.Col span={{ base: 12, lg: 5 }}>
          <MachineFacts machine={machine} />
        </Grid.Col>
        <Grid.Col span={12}>
          <MachineTunnels machine={machine} />
        </Grid.Col>
        <Grid.Col span={{ base: 12, lg: role === "user" ? 12 : 7 }}>
          <Paper p="md">
            <Title order={2} mb="xs">
              {t("sessions.title")}
            </Title>
            <SessionList filter={{ asset_id: id, page_size: 10 }} compact />
          </Paper>
        </Grid.Col>
        {role !== "user" && (
          <Grid.Col span={{ base: 12, lg: 5 }}>
            <Paper p="md">
              <Title order={2} mb="xs">
                {t("events.title")}
              </Title>
              <EventList filter={{ agent: id, page_size: 10 }} compact />
            </Paper>
          </Grid.Col>
        )}
      </Grid>
      {editing && <EditMachine machine={machine} onClose={edit.close} />}
    </>
  );
}
