"""What ``underpass forward`` is asked for: ``[BIND:]PORT[:HOST:PORT]``, as for ``ssh -L``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from underpass.core.errors import InvalidRequest

__all__ = ["DEFAULT_BIND", "ForwardSpec"]

DEFAULT_BIND: Final = "127.0.0.1"
_PARTS: Final = re.compile(r"\[[^\]]*\]|[^:\[\]]+")


@dataclass(frozen=True, slots=True)
class ForwardSpec:
    """One forward.

    Attributes:
        bind: the local address to listen on, without brackets.
        port: the local port; 0 for any free one.
        target: what the machine opens: ``tcp:HOST:PORT`` or ``unix:PATH``.
    """

    bind: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> ForwardSpec:
        """Understand *text*.

        ``5432`` (the same port on the machine), ``8080:80``, ``8080:db.internal:80``,
        ``0.0.0.0:8080:db.internal:80``, ``[::1]:8080:[fd00::1]:80``, ``2375:unix:/run/x.sock``.

        Raises:
            InvalidRequest: code ``bad_forward``.
        """
        front, unix, path = text.partition(":unix:")
        if unix and not path.startswith("/"):
            raise _bad(text, "a Unix socket is named by its absolute path")
        parts = _PARTS.findall(front)
        if not parts or ":".join(parts) != front:
            raise _bad(text, "IPv6 addresses stand in brackets")
        bind = "" if parts[0].isdigit() else parts.pop(0)
        if len(parts) == 4 and not bind:  # an address such as 0 for 0.0.0.0 is no local port
            bind = parts.pop(0)
        if not parts or len(parts) > (1 if unix else 3):
            raise _bad(text, "there are too many or too few parts")
        port = _port(text, parts[0], least=0)
        if unix:
            target = f"unix:{path}"
        else:
            host = parts[1] if len(parts) == 3 else DEFAULT_BIND
            remote = parts[-1] if len(parts) > 1 else parts[0]
            if host.isdigit():
                raise _bad(text, f"{host!r} is no host")
            target = f"tcp:{host}:{_port(text, remote, least=1)}"
        return cls(bind.strip("[]") or DEFAULT_BIND, port, target)


def _port(text: str, port: str, *, least: int) -> int:
    if port.isascii() and port.isdigit() and least <= int(port[:6]) <= 65535:
        return int(port)
    if port == "0":
        raise _bad(text, "with local port 0, say which port to reach: 0:HOST:PORT")
    raise _bad(text, f"{port!r} is no port")


def _bad(text: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{text!r} is no forward: {why}.",
        code="bad_forward",
        hint="Write [BIND:]PORT[:HOST:PORT] or [BIND:]PORT:unix:PATH.",
    )
