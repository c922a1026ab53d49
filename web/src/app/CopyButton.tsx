// Copies a text. `navigator.clipboard` needs https or localhost, and gateways are met over plain
// http on a LAN too, so there is an older way behind it.

import { ActionIcon, Tooltip } from "@mantine/core";
import { IconCheck, IconCopy } from "@tabler/icons-react";
import { useState } from "react";
import { useT } from "../i18n";
import { copyText } from "./clipboard";

export function CopyButton({ text, label }: { text: string; label?: string }) {
  const t = useT();
  const [done, setDone] = useState(false);
  const copy = async () => {
    setDone(await copyText(text));
    setTimeout(() => setDone(false), 1500);
  };
  return (
    <Tooltip label={done ? t("action.copied") : (label ?? t("action.copy"))}>
      <ActionIcon aria-label={label ?? t("action.copy")} onClick={() => void copy()}>
        {done ? <IconCheck size={15} /> : <IconCopy size={15} />}
      </ActionIcon>
    </Tooltip>
  );
}
