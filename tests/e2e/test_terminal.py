"""A terminal shows exactly what the machine printed, however much and however slowly it is read."""

from __future__ import annotations

import os
import time

import httpx

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually
from tests.e2e.terminal import Terminal
from tests.e2e.test_sessions_survive import cast_text

STANDING = True
FLOOD_SECONDS = float(os.environ.get("UNDERPASS_TEST_FLOOD_SECONDS", "8"))


def test_a_prompt_a_command_and_the_exit_code(admin: httpx.Client, machine: str) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    terminal.type("echo $((6*7))\n")
    terminal.until(r"\r42\r\n")
    terminal.type("exit 3\n")
    assert terminal.until_control("exit")["code"] == 3
    while terminal.close_code is None:
        terminal.step(5)
    assert terminal.close_code == 1000


def test_the_size_is_right_before_the_shell_starts(admin: httpx.Client, machine: str) -> None:
    terminal = Terminal.open(admin, machine, cols=133, rows=41, command="stty size")
    terminal.until("41 133")


def test_two_hundred_resizes_arrive_as_a_few_and_the_last_is_right(
    admin: httpx.Client, machine: str
) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    terminal.run("count=0; trap 'count=$((count+1))' WINCH")
    for index in range(200):
        terminal.control("resize", cols=60 + index % 100, rows=20 + index % 30)
    terminal.control("resize", cols=97, rows=43)
    time.sleep(0.5)
    assert b"43 97" in terminal.run("stty size")
    shown = terminal.run("echo changes=$count")
    changes = int(shown.split(b"changes=")[-1].split(b"\r")[0])
    assert 1 <= changes <= 60, changes
    terminal.control("resize", cols=-5, rows=10**9)
    terminal.control("resize", cols="x")
    time.sleep(0.3)
    assert b"1000 1\r" in terminal.run("stty size")


def test_absurd_messages_do_not_end_the_session(admin: httpx.Client, machine: str) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    for text in ("{", "[]", '{"type":"nope"}', '{"type":5}', '{"type":"resize"}', "x" * 70_000):
        terminal.socket.send(text)
    assert b"still-here" in terminal.run("echo still''-here")


def test_multibyte_characters_split_at_every_offset_stay_whole(
    admin: httpx.Client, machine: str
) -> None:
    text = "aé漢🎉z"
    raw = text.encode()
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    for cut in range(1, len(raw)):
        head = "".join(f"\\x{byte:02x}" for byte in raw[:cut])
        tail = "".join(f"\\x{byte:02x}" for byte in raw[cut:])
        shown = terminal.run(f"printf '<{head}'; sleep 0.05; printf '{tail}>'")
        assert f"<{text}>".encode() in shown, cut
    terminal.type("exit\n")
    terminal.until_control("exit")
    recorded = cast_text(admin, terminal.session_id).decode()
    assert recorded.count(f"<{text}>") == len(raw) - 1
    assert "\ufffd" not in recorded


def test_a_flood_nobody_reads_grows_nothing_and_ctrl_c_acts_at_once(
    gateway: GatewayProgram, admin: httpx.Client, agent: AgentProgram, machine: str
) -> None:
    terminal = Terminal.open(admin, machine)
    terminal.until(r"[$#] ")
    terminal.run("true")
    before = gateway.rss(), agent.rss()
    terminal.auto_credit = False
    terminal.type("yes\n")
    deadline = time.monotonic() + FLOOD_SECONDS
    peak = before
    while time.monotonic() < deadline:
        time.sleep(0.5)  # a browser that stopped reading
        peak = max(peak[0], gateway.rss()), max(peak[1], agent.rss())
    assert peak[0] - before[0] < 32 << 20, peak
    assert peak[1] - before[1] < 32 << 20, peak
    started = time.monotonic()
    terminal.type(b"\x03")

    def yes_is_gone() -> bool:
        return not any(child.name() == "yes" for child in agent.children())

    eventually(yes_is_gone, 5, "yes being interrupted")
    assert time.monotonic() - started < 0.5
    terminal.auto_credit = True
    terminal.control("credit", bytes=len(terminal.output) + (1 << 20))
    assert b"alive" in terminal.run("echo al''ive", 20)
    terminal.type("exit\n")
    terminal.until_control("exit", 20)
