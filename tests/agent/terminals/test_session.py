"""Real shells in real ptys: bytes, sizes, credit, resume, ends."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import time

import psutil
import pytest

from tests.agent.terminals.conftest import Attach, eventually
from underpass.agent.terminals.host import TerminalHost
from underpass.core.clock import ManualClock
from underpass.wire.terminal import (
    INITIAL_CREDIT,
    Credit,
    Exit,
    Failure,
    Ping,
    Resize,
    Terminate,
)
from underpass.wire.terminal_requests import OpenedBy, PtyRequest


def start(command: str | None = None, **more: object) -> PtyRequest:
    return PtyRequest(session_id="s1", command=command, **more)  # type: ignore[arg-type]


def resume(offset: int) -> PtyRequest:
    return PtyRequest(session_id="s1", offset=offset)


async def test_a_login_shell_in_a_terminal_of_the_right_size(attach: Attach, home: object) -> None:
    trunk = attach(start(cols=91, rows=33))
    await trunk.shows(b"ready> ")
    trunk.give(b"stty size; pwd; echo $0 $TERM $COLORTERM $LANG; shopt login_shell\n")
    await trunk.shows(b"33 91")
    await trunk.shows(str(home).encode() + b"\r\n")
    await trunk.shows(b"-bash xterm-256color truecolor C.UTF-8")
    await trunk.shows(b"login_shell    \ton")
    trunk.give(b"echo $((6*7)); exit 3\n")
    assert await trunk.last_word() == Exit(code=3, offset=len(trunk.output))
    assert b"\r42\r\n" in trunk.output
    assert (trunk.attached.offset, trunk.attached.input_offset) == (0, 0)
    assert (trunk.attached.cols, trunk.attached.rows) == (91, 33)
    assert trunk.attached.command == "/bin/bash"


async def test_the_size_is_there_before_the_program(attach: Attach) -> None:
    trunk = attach(start("stty size", cols=7, rows=900))
    await trunk.last_word()
    assert trunk.output == b"900 7\r\n"


async def test_it_has_its_own_session_and_controlling_terminal(attach: Attach) -> None:
    trunk = attach(start("ps -o pid=,pgid=,sid=,tpgid=,tty= -p $$; tty; ls -l /proc/$$/fd; :"))
    await trunk.last_word()
    text = trunk.output.decode()
    fields = text.split("\r\n")[0].split()
    assert len(set(fields[:3])) == 1
    assert fields[4].startswith("pts/")
    # Standard descriptors and the one `ls` needs no more (bash may keep 255 for itself).
    descriptors = set(re.findall(r" (\d+) -> ", text))
    assert descriptors <= {"0", "1", "2", "255"}, text


@pytest.mark.parametrize("ending", [("exit 0", 0, None), ("kill -9 $$", None, "SIGKILL")])
async def test_how_it_ended(attach: Attach, ending: tuple[str, int | None, str | None]) -> None:
    command, code, signal = ending
    trunk = attach(start(command))
    assert await trunk.last_word() == Exit(code=code, signal=signal, offset=len(trunk.output))


async def test_signals_have_their_defaults(attach: Attach) -> None:
    trunk = attach(start("grep -E 'Sig(Ign|Blk)' /proc/$$/status"))
    await trunk.last_word()
    found = dict(re.findall(rb"(\w+):\s+(\w+)", trunk.output))
    assert set(found) == {b"SigBlk", b"SigIgn"}
    # 32 and 33 belong to the C library: nobody can set them back, and they do nobody harm.
    assert not any(int(mask, 16) & ~(3 << 31) for mask in found.values()), found


async def test_bytes_are_never_touched(attach: Attach) -> None:
    # Every byte value and multi-byte characters, both ways, through a raw terminal.
    data = bytes(range(256)) * 40 + "žluťoučký 🐎".encode() * 200
    trunk = attach(start(f"stty raw -echo; echo go; head -c {len(data)} | od -An -v -tx1"))
    await trunk.shows(b"go")
    for position in range(0, len(data), 997):
        trunk.give(data[position : position + 997])
    await trunk.last_word()
    assert bytes.fromhex(trunk.output.split(b"go\n", 1)[1].decode()) == data


async def test_output_stops_at_the_credit_and_goes_on_with_more(attach: Attach) -> None:
    trunk = attach(start("stty raw; head -c 1000000 /dev/zero | tr '\\0' x"))
    await trunk.until(lambda: len(trunk.output) == INITIAL_CREDIT)
    trunk.give(Ping(1))
    await trunk.until(lambda: trunk.pongs == [1])
    assert len(trunk.output) == INITIAL_CREDIT
    trunk.give(Credit(1000))
    await trunk.until(lambda: len(trunk.output) == INITIAL_CREDIT + 1000)
    trunk.give(Credit(10**9))
    assert await trunk.last_word() == Exit(code=0, offset=1_000_000)


async def test_ctrl_c_acts_while_output_is_blocked(attach: Attach) -> None:
    trunk = attach(start())
    await trunk.shows(b"ready> ")
    trunk.give(b"yes\n")
    await trunk.until(lambda: len(trunk.output) == INITIAL_CREDIT)
    shell = psutil.Process(trunk.attached.pid)
    assert [child.name() for child in shell.children()] == ["yes"]
    pressed = time.monotonic()
    trunk.give(b"\x03")
    await eventually(lambda: not shell.children())
    assert time.monotonic() - pressed < 0.5


async def test_a_flood_does_not_grow_the_process(attach: Attach, host: TerminalHost) -> None:
    trunk = attach(start("yes"))
    await trunk.until(lambda: len(trunk.output) == INITIAL_CREDIT)
    before = psutil.Process().memory_info().rss
    trunk.lose()  # detached: read on, into the ring
    session = host._sessions["s1"]
    await eventually(lambda: session.flow.offset > 12_000_000)
    assert psutil.Process().memory_info().rss - before < 8_000_000
    again = attach(resume(INITIAL_CREDIT))
    await again.until(lambda: len(again.output) == INITIAL_CREDIT)
    assert again.attached.offset > INITIAL_CREDIT
    phase = again.attached.offset % 3
    assert again.output.startswith((b"y\r\n" * 100)[phase : phase + 200])


async def test_resume_gives_exactly_the_rest(attach: Attach) -> None:
    # `attached` may come in the middle of a line; numbers show any byte lost or doubled. They are
    # 2 MB: four trunks with no more than the first credit can't see all of them.
    command = "stty -onlcr; read go; seq 300000; read end"
    trunk = attach(start(command))
    trunk.give(b"\n")
    shown = bytearray()
    for _ in range(4):
        want = len(trunk.output) + 20_000
        await trunk.until(lambda t=trunk, w=want: len(t.output) >= w)
        trunk.lose()
        shown += trunk.output
        next_trunk = attach(resume(len(shown)))
        await next_trunk.until(lambda t=next_trunk: bool(t.controls))
        assert next_trunk.attached.offset == len(shown)
        trunk = next_trunk
    trunk.give(Credit(10**9))
    await trunk.shows(b"300000\n")
    trunk.give(b"\n")
    await trunk.last_word()
    shown += trunk.output
    numbers = shown.split(b"1\n2\n3\n", 1)[1].split(b"300000\n")[0].split()
    assert [int(n) for n in numbers] == list(range(4, 300000))


async def test_input_goes_on_where_the_terminal_stopped_taking(attach: Attach) -> None:
    # The program reads only when told, so the second half of the input is still waiting when the
    # trunk is lost; the gateway sends it again from `input_offset`.
    data = b"".join(b"%06d\n" % n for n in range(9000))  # 63 000 bytes
    trunk = attach(
        start(
            "stty raw -echo; echo go; until [ -e $HOME/on ]; do sleep 0.01; done; "
            f"head -c {len(data)} | sha256sum; stty -a > /dev/null"
        )
    )
    await trunk.shows(b"go")
    trunk.give(data)
    await trunk.until(lambda: trunk.acked > 0)
    trunk.lose()
    again = attach(resume(0))
    await again.until(lambda: bool(again.controls))
    taken = again.attached.input_offset
    assert trunk.acked <= taken < len(data)
    again.give(data[taken:])
    again.give(Ping(7))
    await again.until(lambda: again.pongs == [7])
    home = psutil.Process(again.attached.pid).environ()["HOME"]
    open(f"{home}/on", "w").close()
    await again.last_word()
    import hashlib

    assert hashlib.sha256(data).hexdigest().encode() in again.output


async def test_input_is_acknowledged(attach: Attach, clock: ManualClock) -> None:
    trunk = attach(start("stty raw -echo; echo go; cat > /dev/null"))
    await trunk.shows(b"go")
    clock.advance(1)
    trunk.give(b"abc")
    await trunk.until(lambda: trunk.acked == 3)
    trunk.give(b"x" * 5000)
    await trunk.until(lambda: trunk.acked >= 4099)
    trunk.give(b"y")
    clock.advance(1)
    await trunk.until(lambda: trunk.acked == 5004)


async def test_a_newer_trunk_replaces_an_older_at_once(attach: Attach) -> None:
    first = attach(start())
    await first.shows(b"ready> ")
    second = attach(resume(0))
    await second.shows(b"ready> ")
    assert first.aborted == "replaced"
    first.give(b"echo from-the-old\n")
    second.give(b"echo from-the-$((1))new\n")
    await second.shows(b"from-the-1new")
    assert b"from-the-old" not in second.output


async def test_many_resizes_arrive_as_a_few_and_the_last_one_counts(attach: Attach) -> None:
    trunk = attach(
        start("trap 'n=$((n+1))' WINCH; echo go; until read -t 0.05 x; do :; done; stty size; "
              "echo winch=$n")
    )  # fmt: skip
    await trunk.shows(b"go")
    for cols in range(1, 201):
        trunk.give(Resize(cols, 5000))
    trunk.give(Ping(1))
    await trunk.until(lambda: trunk.pongs == [1])
    await asyncio.sleep(0.12)  # two of the session's resize pauses
    trunk.give(Resize(200, 1000), b"\n")
    await trunk.last_word()
    assert b"1000 200" in trunk.output
    count = int(trunk.output.split(b"winch=")[1])
    assert 1 <= count <= 5


async def test_a_background_job_does_not_hold_the_session(attach: Attach) -> None:
    trunk = attach(start("(trap '' HUP; sleep 300) & echo bg=$!; exit 4"))
    begun = time.monotonic()
    end = await trunk.last_word()
    assert isinstance(end, Exit)
    assert end.code == 4
    assert time.monotonic() - begun < 5
    pid = int(trunk.output.split(b"bg=")[1].split()[0])
    if psutil.pid_exists(pid):
        os.kill(pid, 9)  # nohup'd jobs live on, as under sshd


async def test_what_was_printed_last_is_not_lost(attach: Attach) -> None:
    trunk = attach(start("stty raw; seq 1 20000"))
    await trunk.last_word()
    assert trunk.output == b"".join(b"%d\n" % n for n in range(1, 20001))


async def test_terminate_ends_what_ignores_everything(attach: Attach) -> None:
    trunk = attach(
        start("trap '' HUP TERM INT; (trap '' HUP TERM; sleep 300) & echo on; sleep 300")
    )
    await trunk.shows(b"on")
    shell = psutil.Process(trunk.attached.pid)
    family = [shell, *shell.children(recursive=True)]
    begun = time.monotonic()
    trunk.give(Terminate("by admin"))
    end = await trunk.last_word()
    assert time.monotonic() - begun < 5
    assert isinstance(end, Exit)
    assert end.signal == "SIGKILL"
    await eventually(lambda: not any(p.is_running() for p in family))


async def test_terminate_is_gentle_first(attach: Attach) -> None:
    trunk = attach(start("trap 'echo bye; exit 5' HUP; echo on; while :; do sleep 0.01; done"))
    await trunk.shows(b"on")
    trunk.give(Terminate())
    assert (await trunk.last_word()) == Exit(code=5, offset=len(trunk.output))
    assert b"bye" in trunk.output


async def test_nobody_comes_back_within_the_grace_time(
    attach: Attach, host: TerminalHost, clock: ManualClock
) -> None:
    trunk = attach(start(grace=600.0))
    await trunk.shows(b"ready> ")
    pid = trunk.attached.pid
    trunk.lose()
    session = host._sessions["s1"]
    await eventually(lambda: not session.flow.attached)
    clock.advance(599)
    host.sweep()
    assert not session._ending
    clock.advance(1)
    host.sweep()
    await session.wait_ended()
    host.sweep()
    assert len(host) == 0
    assert not psutil.pid_exists(pid)


async def test_who_is_back_just_after_the_hang_up_is_told(
    attach: Attach, host: TerminalHost, clock: ManualClock
) -> None:
    trunk = attach(start(grace=5.0))
    await trunk.shows(b"ready> ")
    trunk.lose()
    session = host._sessions["s1"]
    await eventually(lambda: not session.flow.attached)
    clock.advance(6)
    host.sweep()
    back = attach(resume(0))
    end = await back.last_word()
    assert isinstance(end, Failure)
    assert end.code == "grace_over"


async def test_an_exit_waits_for_a_reader(
    attach: Attach, host: TerminalHost, clock: ManualClock
) -> None:
    trunk = attach(start("echo one; read x; echo two; exit 9", grace=60.0))
    await trunk.shows(b"one")
    trunk.give(b"\n")
    trunk.lose()
    session = host._sessions["s1"]
    await session.wait_ended()
    (entry,) = host.announce()
    assert entry["exited"]
    assert entry["code"] == 9
    assert host.tty_status()["active_sessions"] == 0
    back = attach(resume(len(trunk.output)))
    assert (await back.last_word()) == Exit(code=9, offset=len(trunk.output) + len(back.output))
    assert (trunk.output + back.output).endswith(b"two\r\n")
    await eventually(lambda: len(host) == 0)


async def test_another_user_cannot_resume(attach: Attach, host: TerminalHost) -> None:
    trunk = attach(start(user=OpenedBy("u1", "ann")))
    await trunk.shows(b"ready> ")
    with pytest.raises(Exception, match="another user"):
        await host.prepare(PtyRequest(session_id="s1", offset=0, user=OpenedBy("u2", "bob")))


def python(script: str) -> str:
    return shlex.join([sys.executable, "-I", "-S", "-c", script])


async def test_who_holds_the_terminal_after_the_end_is_hung_up(attach: Attach) -> None:
    # A leader that gave its terminal up does not take it along when it ends (see tty_ioctl(4)).
    trunk = attach(
        start(
            "exec "
            + python(
                "import fcntl, os, signal, termios, time\n"
                "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
                "fcntl.ioctl(0, termios.TIOCNOTTY)\n"
                "pid = os.fork()\n"
                "if pid == 0: time.sleep(300)\n"
                "print('held by', pid, flush=True)\n"
                "os._exit(6)\n"
            )
        )
    )
    begun = time.monotonic()
    end = await trunk.last_word()
    assert isinstance(end, Exit)
    assert end.code == 6
    assert 1.0 <= time.monotonic() - begun < 6
    pid = int(trunk.output.split(b"held by ")[1].split()[0])
    # Nobody may have collected the orphan yet; over it is.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_terminal_closed_and_opened_again(attach: Attach) -> None:
    trunk = attach(
        start(
            "exec "
            + python(
                "import os, time\n"
                "for fd in (0, 1, 2): os.close(fd)\n"
                "time.sleep(0.5)\n"
                "os.write(os.open('/dev/tty', os.O_RDWR), b'back')\n"
            )
        )
    )
    assert (await trunk.last_word()) == Exit(code=0, offset=4)
    assert trunk.output == b"back"


async def test_input_without_end_is_not_taken_without_end(attach: Attach, host: object) -> None:
    trunk = attach(start("stty raw -echo; echo go; sleep 100"))
    await trunk.shows(b"go")
    for _ in range(40):
        trunk.give(bytes(65536))
    trunk.give(Ping(1))
    flow = host._sessions["s1"].flow  # type: ignore[attr-defined]
    await eventually(lambda: flow.input_full)
    assert flow._pending_bytes < 8 * 65536
    # The next trunk starts with nothing of it.
    again = attach(resume(0))
    again.give(Ping(2))
    await again.until(lambda: again.pongs == [2])
    assert flow._pending_bytes == 0


async def test_agents_messages_from_a_gateway_mean_nothing(attach: Attach) -> None:
    trunk = attach(start())
    await trunk.shows(b"ready> ")
    trunk.give(Exit(code=0), Failure("x"), Ping(1))
    await trunk.until(lambda: trunk.pongs == [1])


async def test_a_gateway_may_let_go_and_come_back(attach: Attach) -> None:
    trunk = attach(start())
    await trunk.shows(b"ready> ")
    trunk.end()
    await trunk.until(lambda: trunk.closed)
    again = attach(resume(0))
    await again.shows(b"ready> ")
