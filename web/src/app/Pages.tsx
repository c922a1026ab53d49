// The way through the pages of a list; nothing for a list of one.

import { Pagination } from "@mantine/core";
import { useT } from "../i18n";

export function Pages({
  of,
  value,
  onChange,
}: {
  of: { total: number; page_size: number } | undefined;
  value: number;
  onChange: (page: number) => void;
}) {
  const t = useT();
  const pages = of ? Math.ceil(of.total / Math.max(1, of.page_size)) : 0;
  if (pages < 2) return null;
  return (
    <Pagination
      total={pages}
      value={value}
      onChange={onChange}
      size="sm"
      mt="md"
      getControlProps={(control) => ({ "aria-label": t(`pages.${control}`) })}
    />
  );
}
