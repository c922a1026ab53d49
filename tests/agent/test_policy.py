"""The machine's policy: deny beats allow, no match is no, and some addresses never."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.agent.policy import Policy
from underpass.agent.policy_file import PolicyError, load_policy, parse_policy

EXAMPLE = """
# what people may do on this machine
allow:
  - kind: tcp
    hosts: [127.0.0.1, 10.1.0.0/16, "*.internal.example", db.example]
    ports: "22,8000-8999"
  - {kind: unix, paths: [/run/app.sock, "/srv/*/sock", "/var/lib/x/**"]}
  - kind: shell
    logins: [self, deploy]
  - kind: exec
    logins: deploy
  - kind: file
    paths: ["~/**"]
deny:
  - {kind: tcp, hosts: [10.1.9.0/24]}
  - {kind: shell, logins: [root]}
"""


def tcp(policy: Policy, address: str, port: int = 8000, host: str | None = None) -> bool:
    return policy.decide("tcp", host=host or address, address=address, port=port).allowed


class TestDefaults:
    policy = Policy(own_login="me")

    @pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
    def test_loopback_is_allowed(self, address: str) -> None:
        assert tcp(self.policy, address)
        assert self.policy.allows("udp", host=address, port=53)

    @pytest.mark.parametrize("address", ["10.0.0.1", "8.8.8.8", "192.168.1.1", "2001:db8::1"])
    def test_nothing_else_is(self, address: str) -> None:
        decision = self.policy.decide("tcp", host=address, port=80)
        assert (decision.allowed, decision.rule) == (False, "default-deny")

    def test_shells_as_oneself_only(self) -> None:
        assert self.policy.allows("shell")
        assert self.policy.allows("exec", login="me")
        assert self.policy.allows("exec", login="self")
        assert not self.policy.allows("shell", login="root")
        assert self.policy.login_allowed("shell")("me")
        assert not self.policy.login_allowed("exec")("root")
        assert self.policy.default_login("shell") is None

    def test_files_under_the_home_only(self) -> None:
        assert self.policy.allows("file", path="/home/me/x/y", home="/home/me")
        assert self.policy.allows("file", path="/home/me", home="/home/me/")
        assert not self.policy.allows("file", path="/home/meow/x", home="/home/me")
        assert not self.policy.allows("file", path="/etc/passwd", home="/home/me")
        assert not self.policy.allows("file", path="/etc/passwd", home="/")
        assert not self.policy.allows("file", path="/home/me/x")
        assert not self.policy.allows("file", path="/home/me/../you", home="/home/me")
        assert not self.policy.allows("file", path="x", home="/home/me")
        assert not self.policy.allows("file", path="/home/m?/x", home="/home/m?x")

    def test_containers_yes_unix_sockets_no(self) -> None:
        assert self.policy.allows("container")
        assert not self.policy.allows("unix", path="/run/docker.sock")


class TestAlwaysDenied:
    everything = parse_policy("allow: [{kind: tcp}, {kind: udp, hosts: ['*', 0.0.0.0/0, '::/0']}]")

    @pytest.mark.parametrize(
        "address",
        [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "fe80::1%eth0",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
            "2001:0:0:0:0:0:5601:5601",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ],
    )
    def test_whatever_the_rules_say(self, address: str) -> None:
        for kind in ("tcp", "udp"):
            decision = self.everything.decide(kind, host="x", address=address, port=80)
            assert not decision.allowed
            assert decision.rule in {"link-local", "no-host"}

    def test_other_addresses_are_not(self) -> None:
        assert tcp(self.everything, "8.8.8.8")
        assert tcp(self.everything, "2001:db8::1")
        assert tcp(self.everything, "2001:0:4136:e378:8000:63bf:3fff:fdd2")  # Teredo of 192.0.2.45

    @given(st.ip_addresses())
    def test_any_address_gets_an_answer(
        self, address: ipaddress.IPv4Address | ipaddress.IPv6Address
    ) -> None:
        decision = self.everything.decide("udp", host="h", address=address, port=1)
        assert decision.allowed is (decision.rule.startswith("allow"))


class TestRules:
    policy = parse_policy(EXAMPLE, own_login="root")

    @pytest.mark.parametrize(
        ("host", "address", "port", "allowed"),
        [
            ("127.0.0.1", "127.0.0.1", 22, True),
            ("127.0.0.1", "127.0.0.1", 23, False),
            ("127.0.0.1", "127.0.0.1", 8999, True),
            ("127.0.0.2", "127.0.0.2", 22, False),
            ("10.1.2.3", "10.1.2.3", 8000, True),
            ("10.1.9.3", "10.1.9.3", 8000, False),
            ("DB.example.", "203.0.113.9", 8000, True),
            ("other.example", "203.0.113.9", 8000, False),
            ("a.b.internal.example", "203.0.113.9", 22, True),
            ("internal.example", "203.0.113.9", 22, False),
            ("evilinternal.example", "203.0.113.9", 22, False),
            # A name that is allowed, pointed at what is denied or never allowed:
            ("db.example", "10.1.9.9", 8000, False),
            ("db.example", "169.254.169.254", 8000, False),
        ],
    )
    def test_tcp(self, host: str, address: str, port: int, allowed: bool) -> None:
        assert tcp(self.policy, address, port, host) is allowed

    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            ("/run/app.sock", True),
            ("/run/app.sock/x", False),
            ("/srv/a/sock", True),
            ("/srv/a/b/sock", False),
            ("/var/lib/x", True),
            ("/var/lib/x/y/z", True),
            ("/var/lib/xy", False),
            ("/srv/../run/app.sock", False),
            ("/run/app.sock\0", False),
            ("run/app.sock", False),
        ],
    )
    def test_unix(self, path: str, allowed: bool) -> None:
        assert self.policy.allows("unix", path=path) is allowed

    def test_deny_beats_allow_also_for_self(self) -> None:
        decision = self.policy.decide("shell", login="self")
        assert not decision.allowed
        assert decision.rule == "deny[1] (line 16)"
        assert self.policy.allows("shell", login="deploy")
        assert self.policy.default_login("shell") == "deploy"
        assert self.policy.default_login("exec") == "deploy"
        nobody = parse_policy("allow: [{kind: shell, logins: ['*']}]\ndeny: [{kind: shell}]")
        assert nobody.default_login("shell") is None
        assert not nobody.allows("shell", login="x")

    def test_any_login(self) -> None:
        assert parse_policy("allow: [{kind: exec, logins: ['*']}]").allows("exec", login="x")
        assert parse_policy("allow: [{kind: exec}]").allows("exec", login="x")

    def test_a_deny_under_an_unknown_home_denies(self) -> None:
        policy = parse_policy("allow: [{kind: file}]\ndeny: [{kind: file, paths: ['~/.ssh/**']}]")
        assert not policy.allows("file", path="/x")
        assert not policy.allows("file", path="/h/.ssh/id", home="/h")
        assert policy.allows("file", path="/h/x", home="/h")

    @pytest.mark.parametrize(
        ("pattern", "path", "matches"),
        [
            ("/a/?", "/a/b", True),
            ("/a/?", "/a/bc", False),
            ("/a/**/z", "/a/b/c/z", True),
            ("/a/[*]", "/a/*", True),
            ("/a/[*]", "/a/b", False),
            ("/a/[", "/a/[", True),
            ("/a.b", "/axb", False),
        ],
    )
    def test_globs(self, pattern: str, path: str, matches: bool) -> None:
        policy = parse_policy(f"allow: [{{kind: unix, paths: ['{pattern}']}}]")
        assert policy.allows("unix", path=path) is matches
        assert policy.allows("unix", path=path) is matches  # from the cache

    @pytest.mark.parametrize(
        ("host", "address", "port"),
        [("x", None, 80), ("127.0.0.1", None, None), ("127.0.0.1", None, 0), (None, None, 80)],
    )
    def test_bad_targets(self, host: str | None, address: str | None, port: int | None) -> None:
        decision = self.policy.decide("tcp", host=host, address=address, port=port)
        assert (decision.allowed, decision.rule) == (False, "bad-target")


class TestFile:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("\nallow: [", "line 2: this is not valid YAML"),
            ("- x", "line 1: the policy must be"),
            ("\nalow: []", "line 2: the policy has no 'alow'"),
            ("allow: x", "line 1: allow must be a list"),
            ("allow:\n  - x", "line 2: allow[0] must be"),
            ("allow:\n  - hosts: [x]", "line 2: allow[0] has no kind"),
            ("allow:\n  - kind: [x]", "line 2: kind must be a text"),
            ("allow:\n  - kind: tpc", "line 2: kind 'tpc' is not one of tcp"),
            ("allow:\n  - kind: tcp\n    paths: [/x]", "line 3: paths means nothing"),
            ("allow:\n  - kind: shell\n    ports: 22", "line 3: ports means nothing"),
            ("allow:\n  - kind: tcp\n    ports: 22-", "line 3: '22-' is no port"),
            ("allow:\n  - kind: tcp\n    ports: 9-8", "line 3: '9-8' is no port"),
            ("allow:\n  - kind: tcp\n    ports: [70000]", "line 3: '70000' is no port"),
            ("allow:\n  - kind: tcp\n    ports: ''", "line 3: ports must be a text"),
            ("allow:\n  - kind: tcp\n    hosts: [10.0.0.0/33]", "line 3: '10.0.0.0/33' is no"),
            ("allow:\n  - kind: tcp\n    hosts: ['a b']", "line 3: 'a b' is no"),
            ("allow:\n  - kind: tcp\n    hosts: {a: b}", "line 3: hosts must be a list"),
            ("allow:\n  - kind: unix\n    paths: [x]", "line 3: 'x' must be absolute"),
            ("allow:\n  - kind: file\n    paths: ['~/../x']", "line 3: '~/../x' must be"),
            ("allow:\n  - kind: tcp\n    kind: udp", "line 3: 'kind' is given twice"),
            ("allow:\n  - kind: shell\n    logins: [{}]", "line 3: a login must be a text"),
        ],
    )
    def test_mistakes_name_the_line(self, text: str, says: str) -> None:
        with pytest.raises(PolicyError) as error:
            parse_policy(text, source="policy.yaml")
        assert f"policy.yaml, {says}" in str(error.value)

    def test_an_empty_file_allows_nothing(self) -> None:
        assert not parse_policy("").allows("shell")
        assert not parse_policy("{}").allows("tcp", host="127.0.0.1", port=80)

    def test_lists_and_single_values(self) -> None:
        policy = parse_policy("allow: [{kind: tcp, hosts: localhost, ports: [22, 80-81]}]")
        assert tcp(policy, "::1", 81)
        assert not tcp(policy, "::1", 82)
        assert parse_policy("allow: [{kind: file, paths: ['~']}]").allows(
            "file", path="/h", home="/h"
        )

    def test_loading(self, tmp_path: Path) -> None:
        assert load_policy(None, "me").allows("shell", login="me")
        file = tmp_path / "policy.yaml"
        with pytest.raises(PolicyError, match="Can't read"):
            load_policy(file)
        file.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(PolicyError, match="not UTF-8"):
            load_policy(file)
        file.write_text(EXAMPLE)
        assert load_policy(str(file)).allows("shell", login="deploy")
        file.write_text("#" * (300 << 10))
        with pytest.raises(PolicyError, match="larger than"):
            load_policy(file)

    def test_deep_nesting_is_an_error_not_a_crash(self) -> None:
        with pytest.raises(PolicyError):
            parse_policy("[" * 50_000)

    @given(st.text(max_size=200))
    def test_any_text_is_a_policy_or_an_error(self, text: str) -> None:
        try:
            parse_policy(text)
        except PolicyError as error:
            assert "\n" not in str(error) or "\n" in text


def test_the_documented_example_is_a_policy() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "agent-policy.md"
    text = page.read_text().partition("```yaml\n")[2].partition("```")[0]
    policy = parse_policy(text)
    assert tcp(policy, "127.0.0.1", 5432)
    assert not tcp(policy, "10.1.9.1", 22)
    assert policy.allows("unix", path="/run/postgresql/.s.PGSQL.5432")


class TestListening:
    def test_loopback_needs_no_rule(self) -> None:
        for policy in (Policy(), Policy(allow=())):
            assert policy.listening("127.0.0.1", 80).allowed
            assert policy.listening("::1", 0).allowed

    def test_elsewhere_takes_a_rule(self) -> None:
        assert not Policy().listening("0.0.0.0", 8080).allowed
        text = "allow: [{kind: listen, hosts: [10.1.0.5, 0.0.0.0], ports: 8000-8999}]"
        policy = parse_policy(text)
        assert policy.listening("10.1.0.5", 8080).allowed
        assert policy.listening("0.0.0.0", 8999).allowed
        assert not policy.listening("0.0.0.0", 9000).allowed
        assert not policy.listening("0.0.0.0", 0).allowed
        assert not policy.listening("10.1.0.6", 8080).allowed

    def test_a_target_rule_is_none(self) -> None:
        policy = parse_policy("allow: [{kind: tcp}]")
        assert not policy.listening("10.1.0.5", 8080).allowed
        assert not parse_policy("allow: [{kind: listen}]").allows("tcp", host="10.1.0.5", port=80)

    def test_deny_wins(self) -> None:
        policy = parse_policy(
            "{allow: [{kind: listen}], deny: [{kind: listen, hosts: [loopback], ports: 22}]}"
        )
        assert not policy.listening("127.0.0.1", 22).allowed
        assert policy.listening("127.0.0.1", 23).allowed
        assert policy.listening("0.0.0.0", 22).allowed

    @pytest.mark.parametrize(("address", "port"), [("box", 80), ("", 80), ("::1", 70000)])
    def test_nonsense(self, address: str, port: int) -> None:
        assert not Policy().listening(address, port).allowed
