"""Everything a gateway can be told: flags of ``underpass serve``, ``UNDERPASS_*``, a YAML file.

What is given on the command line wins over the environment, which wins over the file, which wins
over the defaults. Every setting is described in docs/reference/settings.md.
"""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from underpass.core.errors import InvalidRequest

__all__ = ["GatewaySettings", "SettingsError"]


class SettingsError(InvalidRequest):
    """A setting is wrong; the message is one line naming it, the process should exit with 2."""

    code = "bad_settings"


class GatewaySettings(BaseSettings):
    """The settings of ``underpass serve``; build it with :meth:`load`.

    Times are in seconds, sizes in bytes.
    """

    model_config = SettingsConfigDict(
        env_prefix="UNDERPASS_",
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    # Where it listens, and what it is called
    listen: str = "0.0.0.0:3000"
    """``HOST:PORT``; ``[::]:3000`` for IPv6; port 0 takes a free one. ``PORT`` sets the port."""
    public_url: str | None = None
    """The address people and agents use, when a proxy or NAT makes it differ from ``listen``."""
    node_name: str | None = None
    """The built-in agent's name and this node's name in logs; default: the host's name."""
    base_domain: str | None = None
    """Host names under it will be given to HTTP mappings; accepted, not used yet."""
    apps_domain: str | None = None
    """A second domain for forwarded apps, apart from the console's origin; not used yet."""
    port_range: str | None = None
    """``A-B``: ports of the gateway that mappings may take; default: 20000-29999."""
    trusted_proxies: Annotated[list[str], NoDecode] = Field(default_factory=list)
    """Addresses or networks whose ``X-Forwarded-*`` headers are believed."""

    # Where it keeps things
    state: Path = Path("~/.underpass")
    """State directory (0700): keys, SQLite database, recordings."""
    database: str | None = None
    """``sqlite:///path``, ``postgresql://…``, ``mysql://…``; default: SQLite in ``state``."""
    kv: str = "memory:"
    """``memory:``; Redis, remote and hybrid stores belong to the cluster."""
    broker: str = "memory:"
    """``memory:``; Redis and NATS belong to the cluster."""
    secret_key: SecretStr | None = None
    """Nodes that share a database share this; default: keys made in the state directory."""

    # TLS
    tls: Literal["off", "self"] = "off"
    """``self`` makes a certificate in the state directory; agents pin its fingerprint."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    quic: bool = True
    """Links over QUIC, on the UDP port of the same number."""

    # The built-in agent
    local_agent: bool = True

    # People
    admin_user: str | None = None
    admin_password: SecretStr | None = None
    session_idle: float = Field(default=12 * 3600, ge=60, le=90 * 86400)
    """A login not used for so long ends."""
    session_lifetime: float = Field(default=7 * 86400, ge=60, le=366 * 86400)
    """A login ends after so long, used or not."""
    event_retention: float = Field(default=365 * 86400, ge=3600)
    """Events older than this are forgotten."""

    guests: Literal["off", "accept", "all"] = "off"
    """What people without an account may: nothing, use one-time codes, or make them, too."""

    # Terminals
    terminal_grace: float = Field(default=600, ge=0, le=7 * 86400)
    """How long a shell lives with nobody attached."""
    max_sessions_per_user: int = Field(default=32, ge=1, le=10_000)
    max_sessions_per_agent: int = Field(default=64, ge=1, le=10_000)
    recording: Literal["strict", "best_effort"] = "best_effort"
    """When a recording can't be written: refuse new sessions, or go on with an alert."""
    recording_format: Literal["v2", "v3"] = "v2"
    recording_retention: float = Field(default=0, ge=0)
    """Recordings older than this are deleted; 0 keeps them."""
    recording_quota: int = Field(default=0, ge=0)
    """All recordings together take at most this; the oldest go first; 0: no limit."""

    # Agents
    heartbeat_interval: float = Field(default=30, ge=1, le=3600)
    offline_after: int = Field(default=3, ge=1, le=100)
    """Heartbeats missed before a machine is offline."""
    max_links: int = Field(default=20_000, ge=1)

    # Mappings
    max_mappings_per_user: int = Field(default=100, ge=1, le=100_000)
    """Mappings one person may have, disabled ones included, whose quota says nothing of it."""
    default_quota: Annotated[dict[str, int | None], NoDecode] = Field(default_factory=dict)
    """What people may use for whom nobody has set anything else, e.g. ``max_mappings: 5``."""

    # Limits
    max_body: int = Field(default=1024 * 1024, ge=1024, le=1 << 30)
    """Largest API request body."""
    drain_timeout: float = Field(default=10, ge=0, le=600)
    """How long SIGTERM lets requests and terminals finish."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @classmethod
    def load(cls, config: Path | str | None = None, **flags: Any) -> GatewaySettings:
        """Put flags, environment and file together.

        Args:
            config: the YAML file of ``--config``; default: ``UNDERPASS_CONFIG`` if set.
            flags: what was given on the command line; ``None`` means not given.

        Raises:
            SettingsError: with one line that names the setting and says what it should be.
        """
        config = config or os.environ.get("UNDERPASS_CONFIG") or None
        values = _read_file(Path(config).expanduser()) if config else {}
        given = {name: value for name, value in flags.items() if value is not None}
        environment = EnvSettingsSource(cls)
        values |= environment()
        if os.environ.get("SECRET_KEY"):
            values.setdefault("secret_key", os.environ["SECRET_KEY"])
        port = os.environ.get("PORT")
        if port and "listen" not in values:
            values["listen"] = f"0.0.0.0:{port}"
        try:
            return cls(**(values | given))
        except ValidationError as error:
            raise SettingsError(_one_line(error)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: :meth:`load` has merged the sources already, and tests that
        construct settings directly must not depend on the environment."""
        return (init_settings,)

    # -- what follows from the settings ---------------------------------------------------------

    @property
    def host(self) -> str:
        """The address to bind, without brackets."""
        return _split_listen(self.listen)[0]

    @property
    def port(self) -> int:
        return _split_listen(self.listen)[1]

    @property
    def database_url(self) -> str:
        """The database's URL, the default filled in."""
        return self.database or f"sqlite:///{self.state / 'underpass.db'}"

    @property
    def uses_tls(self) -> bool:
        return self.tls == "self" or self.tls_cert is not None

    @property
    def public_ports(self) -> range | None:
        """The ports of ``port_range``, both ends included."""
        if self.port_range is None:
            return None
        low, high = self.port_range.split("-")
        return range(int(low), int(high) + 1)

    # -- checks ----------------------------------------------------------------------------------

    @field_validator("listen")
    @classmethod
    def _listen_is_host_and_port(cls, value: str) -> str:
        _split_listen(value)
        return value

    @field_validator("state", "tls_cert", "tls_key")
    @classmethod
    def _expand_home(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("public_url")
    @classmethod
    def _public_url_is_an_origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be http(s)://HOST[:PORT]")
        if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
            raise ValueError("must be http(s)://HOST[:PORT] without a path")
        return f"{parts.scheme}://{parts.netloc.lower()}"

    @field_validator("port_range")
    @classmethod
    def _port_range_is_a_range(cls, value: str | None) -> str | None:
        if value is None:
            return None
        low, dash, high = value.partition("-")
        if not (dash and low.isdigit() and high.isdigit() and 0 < int(low) <= int(high) <= 65535):
            raise ValueError("must be A-B with 1 ≤ A ≤ B ≤ 65535")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _proxies_may_be_a_comma_list(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("default_quota", mode="before")
    @classmethod
    def _quota_may_be_json(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('must be JSON, e.g. {"max_mappings": 5}') from None

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: list[str]) -> list[str]:
        for network in value:
            ipaddress.ip_network(network, strict=False)
        return value

    @field_validator("database")
    @classmethod
    def _database_is_one_we_speak(cls, value: str | None) -> str | None:
        known = ("sqlite", "postgresql", "postgres", "mysql", "mariadb")
        if value is not None and value.partition(":")[0].partition("+")[0] not in known:
            raise ValueError("must be sqlite:///…, postgresql://… or mysql://…")
        return value

    @field_validator("kv", "broker")
    @classmethod
    def _only_memory_yet(cls, value: str) -> str:
        if value not in {"memory:", "memory"}:
            raise ValueError("only memory: is supported by this version")
        return "memory:"

    @field_validator("secret_key")
    @classmethod
    def _secret_key_is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("must have at least 16 characters; try: openssl rand -base64 32")
        return value

    @model_validator(mode="after")
    def _pairs_are_complete(self) -> GatewaySettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_cert is not None and self.tls == "self":
            raise ValueError("tls: self and tls_cert exclude each other")
        if (self.admin_user is None) != (self.admin_password is None):
            raise ValueError("admin_user and admin_password go together")
        return self


def _split_listen(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be HOST:PORT, e.g. 0.0.0.0:3000 or [::]:3000")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address goes into brackets, e.g. [::]:3000")
    return host or "0.0.0.0", int(port)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"Can't read {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise SettingsError(f"{path} is not valid YAML{line}.") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"{path} must hold settings as `name: value` lines.")
    if set(loaded) == {"mappings"}:
        raise SettingsError(
            f"{path} declares mappings, as an agent's underpass.yaml does; it is not the gateway's "
            "settings. Give it to the agent: underpass agent --config FILE, or "
            "UNDERPASS_AGENT_CONFIG."
        )
    return {str(key).replace("-", "_"): value for key, value in loaded.items()}


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"There is no setting {name!r}; docs/reference/settings.md lists them all."
    text = str(first["msg"]).removeprefix("Value error, ")
    return f"Bad setting {name}: {text}." if name else f"Bad settings: {text}."
