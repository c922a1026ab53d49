"""Quotas and the account of the month's traffic, in memory."""

from __future__ import annotations

import asyncio
from typing import Any

from underpass.control.quota import Quota


class FakeQuotas:
    def __init__(self, **defaults: int | None) -> None:
        self.defaults = Quota(**defaults)
        self.rows: dict[str, dict[str, int | None]] = {}

    async def stored(self) -> dict[str, dict[str, int | None]]:
        return dict(self.rows)

    async def forget(self) -> None:
        raise AssertionError("not so early")


class FakeTraffic:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], int] = {}
        self.told: list[tuple[str, str, int]] = []
        self.fails = False
        self.asked = 0
        self.adding = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def used(self, user_id: str, month: str) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails:
            raise OSError("the database is away")
        return self.rows.get((user_id, month), 0)

    async def add(self, user_id: str, month: str, count: int) -> int:
        self.adding += 1
        try:
            await asyncio.sleep(0)
            await self.answers.wait()
        finally:
            self.adding -= 1
        if self.fails:
            raise OSError("the database is away")
        key = (user_id, month)
        self.rows[key] = self.rows.get(key, 0) + count
        return self.rows[key]

    async def tell(self, user_id: str, month: str, percent: int, details: dict[str, Any]) -> bool:
        self.told.append((user_id, month, percent))
        return True

    async def forget(self) -> None:
        raise AssertionError("not so early")
