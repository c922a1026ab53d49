"""Mappings to and from their rows; passwords are sealed on the way in, opened on the way out."""

from __future__ import annotations

from collections.abc import Mapping as Fields
from dataclasses import asdict, fields
from typing import Any, Protocol, cast

from underpass.control.mapping import Balancing, Health, Limits, Mapping, Options, Source
from underpass.store.db.mapping_models import MappingRow

__all__ = ["Seals", "columns_of", "mapping_of"]


class Seals(Protocol):
    """Encrypts small secrets for the database (``control.agent_secrets.AgentSecrets``)."""

    def seal(self, agent_id: str, secret: bytes) -> str: ...

    def unseal(self, agent_id: str, sealed: str) -> bytes: ...


def columns_of(mapping: Mapping, seals: Seals) -> dict[str, Any]:
    """The columns of what was asked for; not the counters, which others write."""
    source, options = mapping.source, mapping.options
    return {
        "id": mapping.id,
        "name": mapping.name,
        "user_id": mapping.user_id,
        "protocol": mapping.protocol,
        "source_kind": source.kind,
        "source_agent_id": source.agent_id,
        "source_port": source.port,
        "source_last_port": None if source.port_range is None else source.port_range[1],
        "source_bind": source.bind,
        "target_agent_id": mapping.target_agent_id,
        "target_host": mapping.target_host,
        "target_port": mapping.target_port,
        "target_path": mapping.target_path,
        "status": mapping.status,
        "error": mapping.error,
        "limits": asdict(mapping.limits),
        "options": options.to_json(),
        "sealed_password": (
            None if options.password is None else seals.seal(mapping.id, options.password.encode())
        ),
        "group_name": mapping.group,
        "balancing": asdict(mapping.balancing),
        "declared_by": mapping.declared_by or "",
        "version": mapping.version,
        "created_at": mapping.created_at,
        "updated_at": mapping.updated_at,
    }


def mapping_of(row: MappingRow, seals: Seals) -> Mapping:
    """The mapping a row holds.

    Raises:
        Internal: its password was sealed with another gateway's key.
    """
    password = (
        None if row.sealed_password is None else seals.unseal(row.id, row.sealed_password).decode()
    )
    options = _known(Options, row.options)
    for name in ("allow_ips", "deny_ips"):
        options[name] = tuple(options.get(name) or ())
    health = row.balancing.get("health")
    return Mapping(
        id=row.id,
        name=row.name,
        user_id=row.user_id,
        protocol=cast("Any", row.protocol),
        source=Source(
            kind="agent" if row.source_kind == "agent" else "port",
            port=row.source_port,
            port_range=(
                None if row.source_last_port is None else (row.source_port, row.source_last_port)
            ),
            agent_id=row.source_agent_id,
            bind=row.source_bind,
        ),
        target_agent_id=row.target_agent_id,
        target_host=row.target_host,
        target_port=row.target_port,
        target_path=row.target_path,
        status=cast("Any", row.status),
        error=row.error,
        limits=Limits(**_known(Limits, row.limits)),
        options=Options(**options, password=password),
        group=row.group_name,
        balancing=Balancing(
            balance=row.balancing.get("balance", "round_robin"),
            health=None if health is None else Health(**_known(Health, health)),
        ),
        declared_by=row.declared_by or None,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        total_connections=row.total_connections,
        bytes_sent=row.bytes_sent,
        bytes_received=row.bytes_received,
        last_active_at=row.last_active_at,
    )


def _known(kind: type[Any], stored: Fields[str, Any]) -> dict[str, Any]:
    """What this version knows of a JSON column; a newer node may have written more."""
    names = {field.name for field in fields(kind)} - {"password"}
    return {name: value for name, value in stored.items() if name in names}
