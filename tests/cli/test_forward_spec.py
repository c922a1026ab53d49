"""What ``underpass forward`` takes, and what it says about the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpass.cli.forward_spec import ForwardSpec
from underpass.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "bind", "port", "target"),
    [
        ("5432", "127.0.0.1", 5432, "tcp:127.0.0.1:5432"),
        ("8080:80", "127.0.0.1", 8080, "tcp:127.0.0.1:80"),
        ("0:80", "127.0.0.1", 0, "tcp:127.0.0.1:80"),
        ("8080:db.internal:80", "127.0.0.1", 8080, "tcp:db.internal:80"),
        ("0.0.0.0:8080:db:80", "0.0.0.0", 8080, "tcp:db:80"),
        ("0.0.0.0:8080", "0.0.0.0", 8080, "tcp:127.0.0.1:8080"),
        ("localhost:8080:10.0.0.7:80", "localhost", 8080, "tcp:10.0.0.7:80"),
        ("[::1]:8080:[fd00::1]:80", "::1", 8080, "tcp:[fd00::1]:80"),
        ("[::1]:8080", "::1", 8080, "tcp:127.0.0.1:8080"),
        ("2375:unix:/run/docker.sock", "127.0.0.1", 2375, "unix:/run/docker.sock"),
        ("0:unix:/run/a:b", "127.0.0.1", 0, "unix:/run/a:b"),
        ("[::1]:0:unix:/x", "::1", 0, "unix:/x"),
    ],
)  # fmt: skip
def test_forwards(text: str, bind: str, port: int, target: str) -> None:
    assert ForwardSpec.parse(text) == ForwardSpec(bind, port, target)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "x", "0", "65536", "-1", "80:90:100", "80:a:b", "80:h:0", "80:h:99999999",
        "::1:80", "[::1:80", "1:2:3:4:5", "80:unix:relative", "80:h:unix:/x", "a:b:c:d",
        "host:80:unix", "80:", ":80", "80::80", "۸۰",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ForwardSpec.parse(text)
    assert caught.value.code == "bad_forward"
    assert caught.value.hint


@given(st.text(max_size=40))
def test_anything_is_a_forward_or_told_why_not(text: str) -> None:
    try:
        spec = ForwardSpec.parse(text)
    except InvalidRequest:
        return
    assert 0 <= spec.port <= 65535
    assert spec.target.startswith(("tcp:", "unix:/"))
