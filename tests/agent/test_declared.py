"""``underpass.yaml``: what it may say, and every mistake at once, with its line."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from underpass.agent.declared import KEYS, MAX_DECLARED, Declared, DeclaredError, parse_declared
from underpass.agent.declared_example import EXAMPLE
from underpass.agent.yaml_text import MAX_FILE
from underpass.control.declared_plan import wanted_of
from underpass.control.mapping import Balancing, Health, Limits, Mapping, Options

AGENT = "00000000-0000-4000-8000-000000000001"


def one(text: str) -> Declared:
    (found,) = parse_declared(text)
    return found


def mapping(text: str) -> Mapping:
    """What the gateway makes of the only one in *text*."""
    return wanted_of([one(text).body], AGENT)[0].mapping


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(DeclaredError) as wrong:
        parse_declared(text, "f")
    assert wrong.value.message == wrong.value.lines[0]
    return wrong.value.lines


def tcp(more: str) -> str:
    return f"mappings:\n- name: a\n  protocol: tcp\n{more}"


@pytest.mark.parametrize("text", ["", "# nothing", "mappings:", "mappings: []", "{}"])
def test_nothing_is_fine(text: str) -> None:
    assert parse_declared(text) == ()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("22", "tcp:127.0.0.1:22"),
        ("'22'", "tcp:127.0.0.1:22"),
        ("db.internal:5432", "tcp:db.internal:5432"),
        ("10.0.0.7:80", "tcp:10.0.0.7:80"),
        ("'[::1]:80'", "tcp:[::1]:80"),
        ("22:22", None),
        ("'::1:80'", None),
        ("':80'", None),
        ("host", None),
        ("0", None),
        ("65536", None),
        ("-1", None),
        ("[22]", None),
    ],
)
def test_targets(target: str, expected: str | None) -> None:
    text = tcp(f"  target: {target}")
    if expected is not None:
        assert mapping(text).target == expected
    else:
        (line,) = problems(text)
        assert line.startswith("f, line 4: ")
        assert "target" in line


def test_other_protocols() -> None:
    found = parse_declared(
        "mappings:\n"
        "- {name: d, protocol: udp, target: 53}\n"
        "- {name: s, protocol: unix, target: /run/app.sock}\n"
        "- {name: p, protocol: socks5, options: {username: 0123, password: 1e5}}\n"
    )
    bodies = [each.body for each in found]
    assert bodies[1]["target_path"] == "/run/app.sock"
    assert bodies[2]["options"] == {"username": "0123", "password": "1e5"}, "texts, not numbers"
    assert "1e5" not in repr(found)
    made = wanted_of(bodies, AGENT)
    assert [each.mapping.target for each in made] == [
        "udp:127.0.0.1:53", "unix:/run/app.sock", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "ports"),
    [("20080", [20080]), ("7000-7002", [7000, 7001, 7002]), ("{port: 5}", [5]), ("null", []),
     ("{port_range: 7000-7001, bind: '::1'}", [7000, 7001])],
)  # fmt: skip
def test_sources(source: str, ports: list[int]) -> None:
    assert list(mapping(tcp(f"  target: 1\n  source: {source}")).source.ports) == ports


def test_every_mistake_is_told_with_its_line_and_what_may_be_meant() -> None:
    assert problems(
        "mappings:\n"
        "- name: a\n"
        "  protocol: tcp\n"
        "  target: nowhere\n"
        "  surce: 5\n"
        "  limits: {bandwith: 5, connections: many}\n"
        "  options:\n"
        "    allow_ips:\n"
        "    - 10.0.0.0/8\n"
        "    - bogus\n"
        "    compression: off\n"
        "- name: a\n"
        "  protocol: tcp\n"
        "  target: 1\n"
        "- protocol: http\n"
        "  name: b\n"
        "- {name: c, protocol: udp, target: 1, options: {e2e: true}, status: disabled}\n"
    ) == (
        "f, line 4: mappings[0] (a): target 'nowhere' is none; write PORT or HOST:PORT as this "
        "machine sees it.",
        "f, line 5: mappings[0] has no key 'surce'; did you mean source?",
        "f, line 6: limits of mappings[0] has no key 'bandwith'; did you mean bandwidth?",
        "f, line 6: mappings[0] (a): limits.connections: must be a whole number from 1 to 100000.",
        "f, line 8: mappings[0] (a): options.allow_ips[1]: must be a network such as 192.0.2.0/24.",
        "f, line 11: mappings[0] (a): options.compression: must be one of none, zstd, lz4, gzip, "
        "adaptive.",
        "f, line 15: mappings[2] (b): protocol: http is not offered by this version. Use one of "
        "tcp, udp, socks5, unix.",
        "f, line 17: mappings[3] has no key 'status': switch it with `underpass mappings disable` "
        "and `enable`.",
    )


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("- a", 1, "the file must be `key: value` lines"),
        ("maping: []", 1, "did you mean mappings?"),
        ("listen: 0.0.0.0:3000", 1, "listen is a setting of the gateway"),
        ("mappings: {a: 1}", 1, "must be a list"),
        ("mappings:\n- 5", 2, "mappings[0] must be"),
        ("mappings:\n- {name: a}", 2, "has no protocol"),
        ("mappings:\n- {protocol: tcp, target: 1}", 2, "has no name"),
        (tcp("  target: 1\n  target: 2"), 5, "has target twice"),
        (tcp(""), 2, "target is missing"),
        (tcp("  target: {a: 1}"), 4, "target of mappings[0] must be one value"),
        (tcp("  target: 1\n  options: [a]"), 5, "options of mappings[0] must be `key: value`"),
        (tcp("  target: 1\n  limits: 5"), 5, "limits: must be `key: value` lines"),
        (tcp("  target: 1\n  source: 0x10"), 5, "source.port: must be a whole number"),
        (tcp("  target: 1\n  source: {port: 1, port_range: 1-2}"), 5, "exclude each other"),
        (tcp("  target: 1\n  options: {e2e: true}"), 5, "options.e2e: needs a source at an agent"),
        (tcp("  target: 1\n  source: {client_id: box}"), 5, "must be a machine's id"),
        (tcp("  target: 1\n  limits: {burst: 5}"), 5, "needs a limits.bandwidth"),
        (tcp("  target: 1\n  source: 1-2\n  group: g"), 6, "group: is for mappings"),
        (tcp("  target: 1\n- name: a\n  protocol: tcp\n  target: 2"), 5, "the one in line 2"),
        ("mappings:\n- {name: a/b, protocol: tcp, target: 1}", 2, "name: "),
        ("mappings:\n- {name: a, protocol: socks5, target: 1}", 2, "is not for socks5"),
        ("mappings:\n- {name: a, protocol: unix, target: 1}", 2, "target: must be the absolute"),
        ("mappings: [*x]", 1, "not valid YAML"),
        ("mappings: [!!python/object:os.system x]", 1, "must be `key: value` lines"),
    ],
)
def test_mistakes(text: str, line: int, part: str) -> None:
    (found,) = problems(text)
    assert found.startswith(f"f, line {line}: ")
    assert part in found


def test_what_could_cost_much_is_bounded() -> None:
    assert "larger than" in problems("#" * (MAX_FILE + 1))[0]
    assert "not valid YAML" in problems("[" * 20_000)[0]
    assert len(problems("mappings:\n" + "- 5\n" * 300)) == 100
    many = "".join(f"- {{name: n{n}, protocol: tcp, target: 1}}\n" for n in range(MAX_DECLARED + 1))
    assert "at most" in problems("mappings:\n" + many)[0]
    laughs = "x: &a {" + ", ".join(f"k{n}: 1" for n in range(2000)) + "}\n"
    assert len(problems(f"{laughs}mappings: [{', '.join(['*a'] * 400)}]")) == 100


def test_the_example_has_every_key_with_its_default() -> None:
    tree: Any = yaml.safe_load(EXAMPLE)
    short, everything, tried = tree["mappings"]
    assert set(tree) == set(KEYS[""])
    assert set(everything) == set(KEYS["mappings"])
    assert {"name", "protocol", "target"} == set(short)
    for name, place in (("limits", Limits), ("options", Options), ("health", Health)):
        shown = tried[name] if name == "health" else everything[name]
        assert list(shown) == list(KEYS[name])
        missing = {each.name for each in fields(place)} - set(shown)
        assert missing == set()
        defaults = asdict(place())
        for key, value in shown.items():
            wanted = list(defaults[key]) if isinstance(defaults[key], tuple) else defaults[key]
            assert (value, type(value)) == (wanted, type(wanted)), key
    assert set(everything["source"]) == set(KEYS["source"])
    assert everything["source"] == {
        "port": 0, "port_range": None, "client_id": None, "bind": None,
    }  # fmt: skip
    assert Balancing() == Balancing(everything["balance"], everything["health"])

    made = [each.mapping for each in wanted_of([d.body for d in parse_declared(EXAMPLE)], AGENT)]
    assert made[0].target == "tcp:127.0.0.1:22"
    assert made[1] == mapping("mappings: [{name: everything, protocol: tcp, target: 80}]")
    assert made[2].balancing == Balancing(health=Health())


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
keys = st.sampled_from([key for known in KEYS.values() for key in known]) | st.text(max_size=6)
trees = st.recursive(
    scalars | st.sampled_from(["tcp", "udp", "unix", "socks5", "none", "v2", "1-2", "::1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=20,
)


@given(st.dictionaries(keys, trees, max_size=3) | trees.map(lambda tree: {"mappings": [tree]}))
def test_whatever_it_says_it_is_refused_or_what_the_gateway_takes(tree: Any) -> None:
    try:
        text = yaml.safe_dump(tree, allow_unicode=True)
    except UnicodeEncodeError:
        return
    try:
        found = parse_declared(text)
    except DeclaredError as error:
        assert error.lines
        return
    assert len(wanted_of([each.body for each in found], AGENT)) == len(found)
