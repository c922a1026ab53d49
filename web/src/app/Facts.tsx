// Names and values of one thing, in two quiet columns.

import { Table } from "@mantine/core";
import type { ReactNode } from "react";

export type Fact = [name: string, value: ReactNode];

export function Facts({ rows }: { rows: readonly Fact[] }) {
  return (
    <Table
      variant="vertical"
      verticalSpacing={5}
      horizontalSpacing={0}
      withRowBorders={false}
      className="facts"
    >
      <Table.Tbody>
        {rows.map(([name, value]) => (
          <Table.Tr key={name}>
            <Table.Th scope="row">{name}</Table.Th>
            <Table.Td>{value}</Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}
