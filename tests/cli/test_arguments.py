"""Times, labels, addresses, tables: the forms people type and read."""

from __future__ import annotations

import pytest
import typer

from underpass.cli.agent import join_pair, service_command
from underpass.cli.arguments import duration, labels
from underpass.cli.options import server_url
from underpass.cli.output import Output, ago, plain, size
from underpass.cli.shell import command_line
from underpass.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("15m", 900), ("1h", 3600), ("1h30m", 5400), ("7d", 604800), ("1.5h", 5400),
     (" 2W ", 1209600)],
)  # fmt: skip
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "1x", "-5", "h", "0s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        duration(text)


def test_labels() -> None:
    assert labels(["a=b", " c = d=e "]) == {"a": "b", "c": "d=e"}
    assert labels(None) == {}
    with pytest.raises(typer.BadParameter):
        labels(["novalue"])


@pytest.mark.parametrize(
    ("text", "url"),
    [("gw:3000", "http://gw:3000"), ("https://GW.example.org/", "https://gw.example.org"),
     ("http://[::1]:3000", "http://[::1]:3000"), ("https://gw/base/", "https://gw/base")],
)  # fmt: skip
def test_addresses(text: str, url: str) -> None:
    assert server_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://x", "http://", "http://u:p@x", "http://x:y", "h?a=b"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(InvalidRequest):
        server_url(text)


def test_command_lines() -> None:
    assert command_line(None) is None
    assert command_line(["a | b"]) == "a | b"
    assert command_line(["echo", "a b"]) == "echo 'a b'"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["--join", "http://gw", "upj_x"], ["--server", "http://gw", "--join", "upj_x"]),
        (["--name", "n", "--join", "https://gw", "t", "--mode", "poll"],
         ["--name", "n", "--server", "https://gw", "--join", "t", "--mode", "poll"]),
        (["--join", "upj_x", "--name", "n"], ["--join", "upj_x", "--name", "n"]),
        (["install", "--join", "upj_x"], ["install", "--join", "upj_x"]),
        ([], []),
    ],
)  # fmt: skip
def test_join_takes_an_address_and_a_token(given: list[str], wanted: list[str]) -> None:
    assert join_pair(given) == wanted


def test_the_service_runs_what_was_asked_for() -> None:
    from pathlib import Path

    words = service_command(
        server="https://gw", fingerprint=None, state=Path("/var/lib/underpass"), name="db 1",
        label=["a=b"], policy=Path("/etc/p.yaml"), config=Path("/etc/u.yaml"), transport=None,
        mode="poll",
    )  # fmt: skip
    assert words[words.index("agent") :] == [
        "agent", "--state", "/var/lib/underpass", "--server", "https://gw", "--name", "db 1",
        "--policy", "/etc/p.yaml", "--config", "/etc/u.yaml", "--mode", "poll", "--label", "a=b",
    ]  # fmt: skip


def test_what_machines_say_of_themselves_cannot_drive_the_terminal() -> None:
    assert "\x1b" not in plain("box\x1b]0;owned\x07")
    assert plain("Büro\t1") == "Büro\t1"


def test_plain_tables_are_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("A", "Long name"), [("x" * 120, None), ("y", 2)], value=[])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A" + " " * 121 + "LONG NAME")
    assert lines[1] == "x" * 120
    Output().table(("A",), [], value=[], empty="None here.")
    assert capsys.readouterr().err == "None here.\n"


def test_ago_and_size() -> None:
    assert ago("1970-01-01T00:00:00.000Z", 30) == "30 s"
    assert ago("1970-01-01T00:00:00Z", 600) == "10 min"
    assert ago("1970-01-01T00:00:00Z", 3 * 86400) == "3 d"
    assert ago(None, 1) == ""
    assert (size(10), size(1536), size(3 << 40), size(None)) == ("10 B", "1.5 KiB", "3.0 TiB", "")
