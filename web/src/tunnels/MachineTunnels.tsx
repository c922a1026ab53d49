// The mappings that lead to a machine, on the page of that machine.

import { Anchor, Button, Group, Loader, Paper, Text, Title } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { Link } from "react-router";
import type { Machine } from "../api/types";
import { ErrorState } from "../app/ErrorState";
import { useT } from "../i18n";
import { MappingDialog } from "./MappingDialog";
import { MappingTable } from "./MappingTable";
import { useMappings } from "./queries";

export function MachineTunnels({ machine }: { machine: Machine }) {
  const t = useT();
  const [making, make] = useDisclosure(false);
  const { data, error, refetch } = useMappings(
    { client_id: machine.id, page_size: 20 },
    { live: true },
  );
  return (
    <Paper p="md" component="section" aria-labelledby="machine-tunnels">
      <Group justify="space-between" mb="xs">
        <Title order={2} id="machine-tunnels">
          {t("tunnels.title")}
        </Title>
        <Button size="xs" variant="default" onClick={make.open}>
          {t("tunnels.new")}
        </Button>
      </Group>
      {error && <ErrorState error={error} onRetry={() => void refetch()} />}
      {!data && !error && <Loader size="sm" />}
      {data?.total === 0 && (
        <Text size="sm" c="dimmed">
          {t("tunnels.noneHere")}
        </Text>
      )}
      {data && data.items.length > 0 && <MappingTable mappings={data.items} compact />}
      {data && data.total > data.items.length && (
        <Anchor component={Link} to="/tunnels" size="xs">
          {t("overview.all")}
        </Anchor>
      )}
      {making && <MappingDialog machine={machine.id} onClose={make.close} />}
    </Paper>
  );
}
