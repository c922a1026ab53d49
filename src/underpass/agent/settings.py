"""Everything an agent can be told: flags of ``underpass agent`` and ``UNDERPASS_*``.

``UNDERPASS_CONFIG`` is none of them: it names the gateway's settings, which may be in the same
environment. What ``--config`` gives an agent is ``UNDERPASS_AGENT_CONFIG``.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from underpass.core.errors import UnderpassError
from underpass.core.settings import SettingsError
from underpass.links.dial import GatewayAddress
from underpass.links.trust import parse_fingerprint

__all__ = ["AGENT_CONFIG", "AgentSettings"]

AGENT_CONFIG: Final = "UNDERPASS_AGENT_CONFIG"
_GATEWAY_CONFIG: Final = "UNDERPASS_CONFIG"
_MAX_LOOKED_AT: Final = 256 * 1024
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


class AgentSettings(BaseSettings):
    """The settings of ``underpass agent`` (spec 6, "For scripts"); build it with :meth:`load`."""

    model_config = SettingsConfigDict(
        env_prefix="UNDERPASS_",
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    server: str | None = None
    """The gateway's URL, ``http(s)://HOST[:PORT]``; default: the one in the state directory."""
    join: SecretStr | None = None
    """A join token, which approves the enrolment at once."""
    fingerprint: str | None = None
    """Believe only the gateway certificate with this fingerprint (``sha256:…``)."""
    state: Path = Path("~/.underpass")
    """State directory (0700): identity, keys, secret."""
    name: str | None = Field(None, min_length=1, max_length=64)
    """What the machine calls itself when it enrols; default: the host's name."""
    labels: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)
    """What the machine says of itself; shown, never a reason to allow anything."""
    policy: Path | None = None
    """The policy file; default: ``policy.yaml`` in the state directory if there is one."""
    config: Path | None = None
    """The file that declares mappings; default: ``underpass.yaml`` in the state directory, as soon
    as there is one."""
    transport: Literal["auto", "tcp", "websocket", "quic"] = "auto"
    """How links are made; ``auto`` tries TCP (or TLS), then WebSocket, then QUIC."""
    mode: Literal["link", "poll"] = "link"
    """``poll``: only short HTTPS requests, no link, for networks that allow nothing else."""
    heartbeat: float = Field(30.0, ge=1, le=3600)
    """Seconds between heartbeats."""
    grace: float = Field(600.0, ge=0, le=7 * 86400)
    """Seconds a terminal lives with nobody attached, when the gateway does not say."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @classmethod
    def load(cls, **flags: Any) -> AgentSettings:
        """Put flags and environment together; flags win.

        Args:
            flags: what was given on the command line; ``None`` means not given.

        Raises:
            SettingsError: with one line that names the setting and says what it should be.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        environment = EnvSettingsSource(cls)()
        environment.pop("config", None)  # UNDERPASS_CONFIG
        if os.environ.get(AGENT_CONFIG):
            environment["config"] = os.environ[AGENT_CONFIG]
        values = environment | given
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise SettingsError(_one_line(error)) from None
        if settings.config is None:
            _check_not_ours(os.environ.get(_GATEWAY_CONFIG))
        elif settings.mode == "poll":
            raise SettingsError(
                f"Declared mappings need a link, and --mode poll makes none: {settings.config} "
                f"would not count. Leave --config ({AGENT_CONFIG}) or --mode poll out."
            )
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in; :meth:`load` has merged the sources already."""
        return (init_settings,)

    @property
    def policy_file(self) -> Path | None:
        """The policy file to read, if there is one."""
        if self.policy is not None:
            return self.policy
        default = self.state / "policy.yaml"
        return default if default.exists() else None

    @property
    def config_file(self) -> Path:
        """The file with the declared mappings, there or not: it is watched."""
        return self.config or self.state / "underpass.yaml"

    @property
    def hostname(self) -> str:
        """What the machine calls itself."""
        return self.name or socket.gethostname() or "machine"

    @field_validator("server")
    @classmethod
    def _server_is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            GatewayAddress.parse(value)
        except UnderpassError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return (value if "://" in value else f"http://{value}").rstrip("/")

    @field_validator("fingerprint")
    @classmethod
    def _fingerprint_is_one(cls, value: str | None) -> str | None:
        try:
            return None if value is None else parse_fingerprint(value)
        except UnderpassError as error:
            raise ValueError(error.message.rstrip(".")) from None

    @field_validator("state", "policy", "config")
    @classmethod
    def _expand_home(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_may_be_pairs(cls, value: Any) -> Any:
        """``k=v`` in a list (flags) or one text with commas (environment)."""
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            return value
        labels: dict[str, str] = {}
        for pair in value:
            key, equals, text = str(pair).partition("=")
            if not equals:
                raise ValueError("must be KEY=VALUE")
            labels[key.strip()] = text.strip()
        return labels

    @field_validator("labels")
    @classmethod
    def _labels_are_short(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > 64:
            raise ValueError("must be at most 64")
        for key, text in value.items():
            if not _LABEL.fullmatch(key) or len(text) > 255:
                raise ValueError("must be KEY=VALUE, with letters, digits and ._/- in the key")
        return value


def _check_not_ours(path: str | None) -> None:
    """Refuse to pass over a file of declared mappings that was named as the gateway's settings."""
    if not path:
        return
    try:
        with Path(path).expanduser().open("rb") as file:
            found = yaml.safe_load(file.read(_MAX_LOOKED_AT))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return  # then it is not for us
    if isinstance(found, dict) and "mappings" in found:
        raise SettingsError(
            f"{_GATEWAY_CONFIG} names the gateway's settings, but {path} declares mappings. "
            f"Name it with --config or {AGENT_CONFIG}."
        )


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    text = str(first["msg"]).removeprefix("Value error, ")
    return f"Bad setting {name}: {text}."
