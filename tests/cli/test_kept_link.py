"""A command's kept link: up when it begins, gone at the end, to the gateway that was pinned."""

from __future__ import annotations

import httpx
import pytest

from underpass.cli.kept_link import kept_link
from underpass.cli.options import Connection
from underpass.core.errors import Unauthenticated, UnderpassError

from .conftest import PASSWORD, USER, RunningGateway


def signed_in(gateway: RunningGateway, gateway_key: bytes | None = None) -> Connection:
    login = {"username": USER, "password": PASSWORD}
    answer = httpx.post(f"{gateway.url}/api/v1/auth/login", json=login, trust_env=False)
    token = str(answer.json()["data"]["access_token"])
    return Connection(gateway.url, token, gateway_key=gateway_key)


async def test_it_is_up_and_then_gone(gateway: RunningGateway) -> None:
    async with kept_link(signed_in(gateway), "tcp") as keeper:
        link = await keeper.live()
        assert keeper.links == 1
        assert not link.closed
    assert link.closed


async def test_only_to_the_gateway_that_was_pinned(gateway: RunningGateway) -> None:
    ours = gateway._gateway.services.secrets.public_key
    async with kept_link(signed_in(gateway, ours)) as keeper:
        await keeper.live()
    with pytest.raises(UnderpassError):
        async with kept_link(signed_in(gateway, b"x" * 32)):
            pass


async def test_not_without_a_login(gateway: RunningGateway) -> None:
    with pytest.raises(Unauthenticated):
        async with kept_link(Connection(gateway.url)):
            pass
