// What every mapping needs: its kind, the machine and what to open there, the port, its limits.

import {
  Group,
  Input,
  NumberInput,
  PasswordInput,
  SegmentedControl,
  Select,
  Text,
  TextInput,
} from "@mantine/core";
import { useId } from "react";
import type { MappingProtocol } from "../api/types";
import { useT } from "../i18n";
import { useMachines } from "../machines/queries";
import { has, UNITS } from "./draft";
import type { FieldsProps } from "./MappingDialog";

const PROTOCOLS: readonly MappingProtocol[] = ["tcp", "udp", "socks5", "unix"];
/** Of `UNITS`, in their order. */
const UNIT_NAMES = ["B/s", "KiB/s", "MiB/s"];
const whole = { allowDecimal: false, allowNegative: false, hideControls: true } as const;
const asNumber = (value: number | string) => (value === "" ? "" : Number(value));

export function MainFields(props: FieldsProps) {
  const { draft, errors, isNew, onChange } = props;
  const t = useT();
  const kind = useId();
  return (
    <>
      <Input.Wrapper
        label={t("mapping.protocol")}
        description={t(`protocol.${draft.protocol}.hint`)}
        labelProps={{ component: "div", id: kind }}
        descriptionProps={{ mt: 5 }}
        inputWrapperOrder={["label", "input", "description", "error"]}
      >
        <SegmentedControl
          aria-labelledby={kind}
          fullWidth
          disabled={!isNew}
          value={draft.protocol}
          onChange={(value) => onChange("protocol", { protocol: value as MappingProtocol })}
          data={PROTOCOLS.map((one) => ({ value: one, label: t(`protocol.${one}`) }))}
        />
      </Input.Wrapper>
      <TargetFields {...props} />
      {has.login(draft.protocol) && <LoginFields {...props} />}
      <Group grow align="flex-start" className="field-row">
        <TextInput
          label={t("mapping.listen")}
          description={t("mapping.listenHint")}
          placeholder={t("mapping.automatic")}
          inputMode="numeric"
          error={errors["source.port"]}
          value={draft.listen}
          onChange={(event) => onChange("source.port", { listen: event.currentTarget.value })}
        />
        <TextInput
          label={t("mapping.name")}
          description={t("mapping.nameHint")}
          placeholder={isNew ? t("mapping.automatic") : undefined}
          maxLength={64}
          error={errors.name}
          value={draft.name}
          onChange={(event) => onChange("name", { name: event.currentTarget.value })}
        />
      </Group>
      <LimitFields {...props} />
    </>
  );
}

function TargetFields({ draft, errors, onChange }: FieldsProps) {
  const t = useT();
  const { data: machines } = useMachines();
  return (
    <>
      <Select
        label={t("sessions.machine")}
        placeholder={t("terminal.choose")}
        searchable
        data-autofocus
        openOnFocus={false}
        nothingFoundMessage={t("machines.noMatch")}
        data={(machines ?? []).map((one) => ({
          value: one.id,
          label: one.status === "online" ? one.name : `${one.name} (${t(`status.${one.status}`)})`,
        }))}
        error={errors.target_client_id}
        value={draft.machine}
        onChange={(machine) => onChange("target_client_id", { machine })}
      />
      {has.address(draft.protocol) && (
        <Group grow align="flex-start" className="field-row">
          <TextInput
            label={t("mapping.targetHost")}
            description={t("mapping.targetHostHint")}
            placeholder="127.0.0.1"
            error={errors.target_host}
            value={draft.host}
            onChange={(event) => onChange("target_host", { host: event.currentTarget.value })}
          />
          <NumberInput
            {...whole}
            label={t("mapping.targetPort")}
            description={t("mapping.targetPortHint")}
            placeholder={draft.protocol === "udp" ? "53" : "22"}
            max={65535}
            error={errors.target_port}
            value={draft.port}
            onChange={(value) => onChange("target_port", { port: asNumber(value) })}
          />
        </Group>
      )}
      {draft.protocol === "unix" && (
        <TextInput
          label={t("mapping.targetPath")}
          placeholder="/var/run/docker.sock"
          error={errors.target_path}
          value={draft.path}
          onChange={(event) => onChange("target_path", { path: event.currentTarget.value })}
        />
      )}
      {draft.protocol === "socks5" && (
        <Text size="xs" c="dimmed">
          {t("mapping.socksHint")}
        </Text>
      )}
    </>
  );
}

function LoginFields({ draft, errors, isNew, onChange }: FieldsProps) {
  const t = useT();
  return (
    <Group grow align="flex-start" className="field-row">
      <TextInput
        label={t("field.username")}
        description={t("mapping.loginHint")}
        autoComplete="off"
        maxLength={255}
        error={errors["options.username"]}
        value={draft.username}
        onChange={(event) => onChange("options.username", { username: event.currentTarget.value })}
      />
      <PasswordInput
        label={t("field.password")}
        description={t(isNew ? "mapping.passwordHint" : "mapping.passwordKept")}
        autoComplete="new-password"
        maxLength={255}
        visibilityToggleButtonProps={{ "aria-label": t("field.showPassword") }}
        error={errors["options.password"]}
        value={draft.password}
        onChange={(event) => onChange("options.password", { password: event.currentTarget.value })}
      />
    </Group>
  );
}

function LimitFields({ draft, errors, onChange }: FieldsProps) {
  const t = useT();
  return (
    <Group grow align="flex-start" className="field-row">
      <Group gap={6} align="flex-end" wrap="nowrap">
        <NumberInput
          flex={1}
          allowNegative={false}
          hideControls
          label={t("mapping.bandwidth")}
          description={t("mapping.bandwidthHint")}
          placeholder={t("mapping.unlimited")}
          error={errors["limits.bandwidth"]}
          value={draft.bandwidth}
          onChange={(value) => onChange("limits.bandwidth", { bandwidth: asNumber(value) })}
        />
        <Select
          w={92}
          flex="none"
          allowDeselect={false}
          aria-label={t("mapping.unit")}
          data={UNITS.map((unit, n) => ({ value: String(unit), label: UNIT_NAMES[n] ?? "" }))}
          value={String(draft.unit)}
          onChange={(unit) => onChange("limits.bandwidth", { unit: Number(unit ?? 1024) })}
        />
      </Group>
      <NumberInput
        {...whole}
        label={t("mapping.connections")}
        description={t("mapping.connectionsHint")}
        placeholder={t("mapping.unlimited")}
        error={errors["limits.connections"]}
        value={draft.connections}
        onChange={(value) => onChange("limits.connections", { connections: asNumber(value) })}
      />
    </Group>
  );
}
