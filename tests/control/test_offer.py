"""An offer as a value: what may be offered, and when it lets whom in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from underpass.control.offer import (
    ACCESS_LIFETIME,
    CODE_LIFETIME,
    Offer,
    OfferStatus,
    checked_lifetime,
    wanted_offer,
)
from underpass.core.errors import InvalidRequest
from underpass.core.ids import new_id

BOX = new_id()
WAITING = Offer(
    id="o", user_id="ada", username="ada", agent_id=BOX, machine="db-1",
    target="tcp:127.0.0.1:3306", access_seconds=100.0, created_at=0.0, ends_at=10.0,
)  # fmt: skip
ACCEPTED = replace(WAITING, accepted_at=5.0, accepted_by="bob", ends_at=105.0)


@pytest.mark.parametrize(
    ("offer", "now", "status"),
    [
        (WAITING, 9.9, "waiting"),
        (WAITING, 10.0, "expired"),
        (ACCEPTED, 104.9, "accepted"),
        (ACCEPTED, 105.0, "expired"),
        (replace(ACCEPTED, ended_how="revoked"), 6.0, "revoked"),
        (replace(WAITING, ended_how="expired"), 11.0, "expired"),
    ],
)
def test_what_becomes_of_it(offer: Offer, now: float, status: OfferStatus) -> None:
    assert offer.status(now) == status


def test_it_lets_one_person_open_one_target_of_one_machine_for_a_while() -> None:
    assert ACCEPTED.lets("bob", BOX, "tcp:127.0.0.1:3306", 104.9)
    assert not ACCEPTED.lets("eve", BOX, "tcp:127.0.0.1:3306", 6.0)
    assert not ACCEPTED.lets("ada", BOX, "tcp:127.0.0.1:3306", 6.0)
    assert not ACCEPTED.lets("bob", new_id(), "tcp:127.0.0.1:3306", 6.0)
    assert not ACCEPTED.lets("bob", BOX, "tcp:127.0.0.1:3307", 6.0)
    assert not ACCEPTED.lets("bob", BOX, "tcp:127.0.0.1:3306", 105.0)
    assert not replace(ACCEPTED, ended_how="revoked").lets("bob", BOX, WAITING.target, 6.0)
    assert not WAITING.lets("bob", BOX, WAITING.target, 6.0)


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ({"target_port": 3306}, "tcp:127.0.0.1:3306"),
        ({"target_port": 22, "target_host": "fd00::1"}, "tcp:[fd00::1]:22"),
        ({"target_port": 80, "target_host": "Intranet.Example"}, "tcp:intranet.example:80"),
        ({"protocol": "unix", "target_path": "/run/x.sock"}, "unix:/run/x.sock"),
    ],
)
def test_targets(wanted: dict[str, Any], target: str) -> None:
    found = wanted_offer({"target_client_id": BOX, **wanted})
    assert (found.agent_id, found.target) == (BOX, target)
    assert (found.expires_in, found.access_for) == (CODE_LIFETIME, ACCESS_LIFETIME)


@pytest.mark.parametrize(
    "changes",
    [
        {"target_port": 0}, {"target_port": None}, {"target_host": "a b"}, {"protocol": "udp"},
        {"protocol": "exec"}, {"target_path": "/x"}, {"target_client_id": "box"},
        {"target_client_id": None}, {"expires_in": 0}, {"expires_in": "25h"},
        {"expires_in": "soon"}, {"access_for": "31d"}, {"access_for": True}, {"user_id": "x"},
        {"code": "mine"},
    ],
)  # fmt: skip
def test_what_can_not_be_offered(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        wanted_offer({"target_client_id": BOX, "target_port": 80, **changes})


def test_lifetimes_name_their_field() -> None:
    assert checked_lifetime("x", "2m", 1, 120) == 120
    assert checked_lifetime("x", None, 7, 120) == 7
    with pytest.raises(InvalidRequest, match=r"^x: .*at most 0.5 hours"):
        checked_lifetime("x", "31m", 7, 1800)
