// Finds text in a terminal's buffer, scrolled-off lines included.

import { ActionIcon, Group, Paper, Text, TextInput } from "@mantine/core";
import { IconChevronDown, IconChevronUp, IconX } from "@tabler/icons-react";
import type { SearchAddon } from "@xterm/addon-search";
import { useEffect, useState } from "react";
import { useT } from "../i18n";

const RULER = { matchOverviewRuler: "#b8860b", activeMatchColorOverviewRuler: "#ffd24d" };
/** The text keeps its colour over these, so they follow the ground it was chosen for. */
const ON_DARK = { ...RULER, matchBackground: "#5a4a16", activeMatchBackground: "#8a6508" };
const ON_LIGHT = { ...RULER, matchBackground: "#fff0b8", activeMatchBackground: "#ffd24d" };

interface SearchBarProps {
  search: SearchAddon;
  /** Whether the terminal's ground is dark. */
  dark: boolean;
  onClose: () => void;
}

export function SearchBar({ search, dark, onClose }: SearchBarProps) {
  const t = useT();
  const [text, setText] = useState("");
  const [result, setResult] = useState({ resultIndex: -1, resultCount: 0 });
  useEffect(() => {
    const subscription = search.onDidChangeResults(setResult);
    return () => subscription.dispose();
  }, [search]);
  const decorations = dark ? ON_DARK : ON_LIGHT;
  const next = (value = text, incremental = false) =>
    search.findNext(value, { decorations, incremental });
  const previous = () => search.findPrevious(text, { decorations });
  return (
    <Paper className="search-bar" p={4} shadow="sm" role="search">
      <Group gap={4} wrap="nowrap">
        <TextInput
          size="xs"
          w={190}
          autoFocus
          aria-label={t("terminal.search")}
          placeholder={t("terminal.search")}
          value={text}
          onChange={(event) => {
            setText(event.currentTarget.value);
            next(event.currentTarget.value, true);
          }}
          onKeyDown={(event) => {
            if (event.key === "Enter") event.shiftKey ? previous() : next();
            if (event.key === "Escape") onClose();
          }}
        />
        <Text size="xs" c="dimmed" className="tabular" miw={52} ta="center" role="status">
          {text &&
            (result.resultCount
              ? `${result.resultIndex + 1} / ${result.resultCount}`
              : t("terminal.noHits"))}
        </Text>
        <ActionIcon size="sm" aria-label={t("terminal.previousHit")} onClick={previous}>
          <IconChevronUp size={14} />
        </ActionIcon>
        <ActionIcon size="sm" aria-label={t("terminal.nextHit")} onClick={() => next()}>
          <IconChevronDown size={14} />
        </ActionIcon>
        <ActionIcon size="sm" aria-label={t("action.close")} onClick={onClose}>
          <IconX size={14} />
        </ActionIcon>
      </Group>
    </Paper>
  );
}
