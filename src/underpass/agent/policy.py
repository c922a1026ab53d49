"""What this machine's owner lets people do through the agent, whatever the gateway says.

Pure decisions over the rules of a YAML file (``policy_file.py``). Deny beats allow, no match is
no. Without a file: shells and programs as the agent's own login, TCP and UDP to loopback,
containers with our label, files under the login's home, and nothing else.

Some addresses no rule can allow: link-local ones, where clouds keep machines' credentials, and
those that mean no single host. A name is resolved first, every decision is about the address that
will be dialled, and the caller dials exactly that address.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

__all__ = ["LOOPBACK", "Decision", "Kind", "Policy", "Rule", "is_plain"]

Kind = Literal["tcp", "udp", "unix", "listen", "shell", "exec", "container", "file"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST_KINDS: Final = frozenset({"tcp", "udp"})
_PATH_KINDS: Final = frozenset({"unix", "file"})

_METADATA: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local: AWS, Azure, GCP, OpenStack, DigitalOcean metadata
        "fe80::/10",  # link-local
        "fd00:ec2::254/128",  # AWS over IPv6
        "fd20:ce::254/128",  # GCP over IPv6
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # Oracle Cloud
    )
)
_NOWHERE: Final = tuple(
    ipaddress.ip_network(text)
    # "This host" and "this network" reach loopback services by another name; the others are many
    # hosts at once.
    for text in ("0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8", "255.255.255.255/32")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and which rule gave it."""

    allowed: bool
    rule: str
    why: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``allow`` or ``deny``. A list that is None matches everything of its kind.

    Attributes:
        name: where it stands, e.g. ``allow[0] (line 3)``.
        networks: addresses from ``hosts``.
        names: host names from ``hosts``, lower case, ``*.`` for subdomains.
        ports: pairs of first and last port.
        paths: glob patterns; ``**`` crosses directories.
        logins: login names; ``self`` is the agent's own.
    """

    name: str
    kind: Kind
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] | None = None
    names: tuple[str, ...] | None = None
    ports: tuple[tuple[int, int], ...] | None = None
    paths: tuple[str, ...] | None = None
    logins: tuple[str, ...] | None = None


LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_DEFAULTS: Final = (
    Rule("default", "tcp", networks=LOOPBACK, names=()),
    Rule("default", "udp", networks=LOOPBACK, names=()),
    Rule("default", "shell", logins=("self",)),
    Rule("default", "exec", logins=("self",)),
    Rule("default", "container"),
    Rule("default", "file", paths=("~/**",)),
)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of a machine.

    Attributes:
        allow: rules that let something happen.
        deny: rules that forbid it; they win.
        own_login: whom the agent runs as: what ``self`` in a rule means.
    """

    allow: tuple[Rule, ...] = _DEFAULTS
    deny: tuple[Rule, ...] = ()
    own_login: str = "self"
    _regexes: dict[str, re.Pattern[str]] = field(
        default_factory=dict[str, re.Pattern[str]], compare=False, repr=False
    )

    def decide(
        self,
        kind: Kind,
        *,
        host: str | None = None,
        address: str | Address | None = None,
        port: int | None = None,
        path: str | None = None,
        login: str | None = None,
        home: str | None = None,
    ) -> Decision:
        """Whether the agent may do it.

        Args:
            kind: what is asked for.
            host: the host as it was named (tcp, udp).
            address: what *host* resolved to and what will be dialled; default: *host*, when that
                is an address. Without an address tcp and udp are refused.
            port: the port (tcp, udp).
            path: absolute, links resolved (unix, file).
            login: the login's name; None is the agent's own (shell, exec, file).
            home: that login's home, for ``~`` in rules.
        """
        where: Address | None = None
        if kind in _HOST_KINDS:
            where = _address(address if address is not None else host)
            if where is None or port is None or not 1 <= port <= 65535:
                return Decision(False, "bad-target", "The target is no host and port.")
            for real in _meanings(where):
                if any(real in network for network in _METADATA):
                    return Decision(
                        False, "link-local",
                        f"{where} is a link-local or metadata address; no policy allows those.",
                    )  # fmt: skip
                if any(real in network for network in _NOWHERE):
                    return Decision(False, "no-host", f"{where} is no address of one host.")
        if kind in _PATH_KINDS and (path is None or not is_plain(path)):
            return Decision(False, "bad-target", "The path is not absolute or not plain.")
        name = login if login not in (None, "", "self") else self.own_login
        asked = _Asked(kind, (host or "").lower().rstrip("."), where, port, path, name, home)
        for rule in self.deny:
            if self._matches(rule, asked, deny=True):
                return Decision(False, rule.name, f"The machine's policy denies it: {rule.name}.")
        for rule in self.allow:
            if self._matches(rule, asked, deny=False):
                return Decision(True, rule.name, f"The machine's policy allows it: {rule.name}.")
        return Decision(False, "default-deny", "No rule of the machine's policy allows it.")

    def listening(self, address: str, port: int) -> Decision:
        """Whether the agent may listen for mappings (rules of kind ``listen``): on loopback unless
        a rule denies it, anywhere else only where a rule allows it.

        Args:
            address: to listen on; the unspecified ones are every address of the machine.
            port: 0 is any.
        """
        where = _address(address)
        if where is None or not 0 <= port <= 65535:
            return Decision(False, "bad-target", "That is no address and port.")
        asked = _Asked("listen", address, where, port, None, self.own_login, None)
        for rule in self.deny:
            if self._matches(rule, asked, deny=True):
                return Decision(False, rule.name, f"The machine's policy denies it: {rule.name}.")
        if any(where in network for network in LOOPBACK):
            return Decision(True, "loopback", "Loopback needs no rule.")
        for rule in self.allow:
            if self._matches(rule, asked, deny=False):
                return Decision(True, rule.name, f"The machine's policy allows it: {rule.name}.")
        return Decision(False, "default-deny", "No rule of the machine's policy allows it.")

    def allows(self, kind: Kind, **what: Any) -> bool:
        """:meth:`decide`, yes or no."""
        return self.decide(kind, **what).allowed

    def login_allowed(self, kind: Literal["shell", "exec"]) -> Callable[[str], bool]:
        """The question "may programs of this kind run as this login?" for openers."""
        return lambda login: self.allows(kind, login=login)

    def default_login(self, kind: Literal["shell", "exec"]) -> str | None:
        """Whom requests that name no login get: None is the agent's own; when that is not allowed,
        the first login a rule names that is."""
        if self.allows(kind):
            return None
        for rule in self.allow:
            for login in rule.logins or () if rule.kind == kind else ():
                if login != "*" and self.allows(kind, login=login):
                    return login
        return None

    def _matches(self, rule: Rule, asked: _Asked, *, deny: bool) -> bool:
        if rule.kind != asked.kind:
            return False
        if rule.networks is not None or rule.names is not None:
            assert asked.address is not None
            by_address = any(
                real in network
                for real in _meanings(asked.address)
                for network in rule.networks or ()
            )
            if not by_address and not _names_match(rule.names or (), asked.host):
                return False
        if rule.ports is not None and not any(
            first <= (asked.port or 0) <= last for first, last in rule.ports
        ):
            return False
        if rule.paths is not None and not any(
            self._path_matches(pattern, asked, deny=deny) for pattern in rule.paths
        ):
            return False
        if rule.logins is not None:
            logins = {self.own_login if login == "self" else login for login in rule.logins}
            return "*" in logins or asked.login in logins
        return True

    def _path_matches(self, pattern: str, asked: _Asked, *, deny: bool) -> bool:
        if pattern == "~" or pattern.startswith("~/"):
            if not asked.home or asked.home == "/":
                # A home that is unknown or the whole disk: allow nothing by it, deny everything.
                return deny
            pattern = _escape(asked.home.rstrip("/")) + pattern[1:]
        regex = self._regexes.get(pattern)
        if regex is None:
            regex = self._regexes[pattern] = _glob(pattern)
        return regex.fullmatch(asked.path or "") is not None


@dataclass(frozen=True, slots=True)
class _Asked:
    kind: Kind
    host: str
    address: Address | None
    port: int | None
    path: str | None
    login: str
    home: str | None


def _address(value: str | Address | None) -> Address | None:
    if value is None or isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return value
    try:
        return ipaddress.ip_address(value.strip("[]"))
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _meanings(address: Address) -> tuple[Address, ...]:
    """*address*, and the IPv4 address it carries inside, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    plain = ipaddress.IPv6Address(int(address))  # without a scope id
    inner = plain.ipv4_mapped or plain.sixtofour
    if inner is None and plain.teredo is not None:
        inner = plain.teredo[1]
    if inner is None and plain in _NAT64:
        inner = ipaddress.IPv4Address(int(plain) & 0xFFFFFFFF)
    if inner is None and int(plain) >> 32 == 0 and int(plain) > 1:
        inner = ipaddress.IPv4Address(int(plain))  # the old "compatible" form, ::a.b.c.d
    return (plain,) if inner is None else (plain, inner)


def _names_match(patterns: Iterable[str], host: str) -> bool:
    for pattern in patterns:
        if pattern in ("*", host):
            return True
        if pattern.startswith("*.") and host.endswith(pattern[1:]) and host != pattern[1:]:
            return True
    return False


def is_plain(path: str) -> bool:
    """Whether *path* is absolute and says where it leads: no ``..``, ``//`` or NUL in it."""
    return path.startswith("/") and "\0" not in path and posixpath.normpath(path) == path


def _escape(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)


def _glob(pattern: str) -> re.Pattern[str]:
    """Shell-like: ``*`` and ``?`` stay within a directory, ``**`` does not, ``[*]`` is a star."""
    out, index = "", 0
    while index < len(pattern):
        if pattern.startswith("/**", index) and index + 3 == len(pattern):
            out += "(/.*)?"
            index += 3
        elif pattern.startswith("**", index):
            out += ".*"
            index += 2
        elif pattern[index] == "*":
            out += "[^/]*"
            index += 1
        elif pattern[index] == "?":
            out += "[^/]"
            index += 1
        elif pattern[index] == "[" and pattern[index + 2 : index + 3] == "]":
            out += re.escape(pattern[index + 1])
            index += 3
        else:
            out += re.escape(pattern[index])
            index += 1
    return re.compile(out, re.DOTALL)
