"""What ``doctor`` says of UDP, and of the way a link takes."""

from __future__ import annotations

from collections.abc import Callable

from underpass.cli.doctor import Check, _why
from underpass.cli.options import Connection

from .conftest import Result


def test_doctor_says_whether_udp_gets_through_and_why_the_way_is_taken(
    signed_in: Callable[..., Result],
) -> None:
    found = {check["name"]: check for check in signed_in("doctor", "--json").json}
    udp = found["QUIC over UDP"]
    assert udp["result"] in ("ok", "skip")  # the test's gateway may have no UDP port
    assert ("round trip" in udp["detail"]) == (udp["result"] == "ok")
    assert found["way chosen"]["result"] == "ok"
    assert found["way chosen"]["detail"].startswith("tcp: it gets through")


def test_doctor_explains_each_way() -> None:
    ok, off = Check("x", "ok", ""), Check("x", "fail", "refused")
    auto = Connection("http://h")
    assert "too" in _why(auto, "tcp", ok, ok, ok)
    assert "does not get through" in _why(auto, "tls", ok, ok, off)
    assert "TCP does not get through (refused)" in _why(auto, "websocket", off, ok, off)
    assert "nor does a WebSocket" in _why(auto, "quic", off, off, ok)
    asked = Connection("http://h", transport="quic")
    assert _why(asked, "quic", ok, ok, ok) == "asked for by --transport quic"
