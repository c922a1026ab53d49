// What few mappings need: who may connect, PROXY protocol, compression, carrier, idle time, address.

import { Group, NumberInput, Select, Stack, Switch, TagsInput, TextInput } from "@mantine/core";
import { useT } from "../i18n";
import { type Draft, has } from "./draft";
import type { FieldsProps } from "./MappingDialog";

const COMPRESSIONS = ["none", "adaptive", "zstd", "lz4", "gzip"] as const;
const CARRIERS = ["auto", "mux", "dedicated"] as const;

export function AdvancedFields({ draft, errors, onChange }: FieldsProps) {
  const t = useT();
  const versions = draft.protocol === "udp" ? (["none", "v2"] as const) : PROXY_VERSIONS;
  return (
    <Stack gap="sm">
      <Group grow align="flex-start" className="field-row">
        <TagsInput
          label={t("mapping.allow")}
          description={t("mapping.allowHint")}
          placeholder={draft.allow.length ? undefined : "192.0.2.0/24"}
          splitChars={[",", " "]}
          acceptValueOnBlur
          error={errors["options.allow_ips"]}
          value={draft.allow}
          onChange={(allow) => onChange("options.allow_ips", { allow })}
        />
        <TagsInput
          label={t("mapping.deny")}
          description={t("mapping.denyHint")}
          placeholder={draft.deny.length ? undefined : "198.51.100.7"}
          splitChars={[",", " "]}
          acceptValueOnBlur
          error={errors["options.deny_ips"]}
          value={draft.deny}
          onChange={(deny) => onChange("options.deny_ips", { deny })}
        />
      </Group>
      {has.proxy(draft.protocol) && (
        <Select
          label={t("mapping.proxy")}
          description={t("mapping.proxyHint")}
          allowDeselect={false}
          data={versions.map((one) => ({ value: one, label: t(`proxy.${one}`) }))}
          error={errors["options.proxy_protocol"]}
          value={draft.proxy}
          onChange={(proxy) =>
            onChange("options.proxy_protocol", { proxy: (proxy ?? "none") as Draft["proxy"] })
          }
        />
      )}
      {has.acceptProxy(draft.protocol) && (
        <Switch
          label={t("mapping.acceptProxy")}
          description={t("mapping.acceptProxyHint")}
          error={errors["options.accept_proxy_protocol"]}
          checked={draft.acceptProxy}
          onChange={(event) =>
            onChange("options.accept_proxy_protocol", { acceptProxy: event.currentTarget.checked })
          }
        />
      )}
      <Group grow align="flex-start" className="field-row">
        <Select
          label={t("mapping.compression")}
          description={t("mapping.compressionHint")}
          allowDeselect={false}
          data={COMPRESSIONS.map((one) => ({ value: one, label: t(`compression.${one}`) }))}
          error={errors["options.compression"]}
          value={draft.compression}
          onChange={(value) =>
            onChange("options.compression", {
              compression: (value ?? "none") as Draft["compression"],
            })
          }
        />
        <Select
          label={t("mapping.carrier")}
          description={t("mapping.carrierHint")}
          allowDeselect={false}
          data={CARRIERS.map((one) => ({ value: one, label: t(`carrier.${one}`) }))}
          error={errors["options.carrier"]}
          value={draft.carrier}
          onChange={(value) =>
            onChange("options.carrier", { carrier: (value ?? "auto") as Draft["carrier"] })
          }
        />
      </Group>
      <Group grow align="flex-start" className="field-row">
        <NumberInput
          label={t("mapping.idle")}
          description={t("mapping.idleHint")}
          placeholder={t("mapping.asDefault")}
          allowNegative={false}
          hideControls
          error={errors["options.idle_timeout"]}
          value={draft.idle}
          onChange={(value) =>
            onChange("options.idle_timeout", { idle: value === "" ? "" : Number(value) })
          }
        />
        <TextInput
          label={t("mapping.bind")}
          description={t("mapping.bindHint")}
          placeholder={t("mapping.asDefault")}
          error={errors["source.bind"]}
          value={draft.bind}
          onChange={(event) => onChange("source.bind", { bind: event.currentTarget.value })}
        />
      </Group>
    </Stack>
  );
}

const PROXY_VERSIONS = ["none", "v1", "v2"] as const;
