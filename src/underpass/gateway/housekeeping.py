"""What a gateway tidies up now and then: ended logins, old events."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from underpass.core.errors import UnderpassError
from underpass.core.jitter import spread
from underpass.gateway.services import Services

__all__ = ["keep_house"]

_log = structlog.get_logger(__name__)

EVERY: Final = 3600.0


async def keep_house(services: Services, every: float = EVERY) -> None:
    """Tidy up soon after the start and then about every *every* seconds, for ever."""
    wait = min(60.0, every)
    while True:
        await asyncio.sleep(spread(wait * 0.9, wait * 1.1))  # nodes of a cluster don't meet
        wait = every
        try:
            logins = await services.sign_in.identities.prune()
            retention = services.settings.event_retention
            events = await services.events.prune(services.clock.now() - retention)
        except (UnderpassError, SQLAlchemyError, OSError) as error:
            _log.warning("housekeeping_failed", error=str(error)[:300])
            continue
        if logins or events:
            _log.info("housekeeping_done", logins=logins, events=events)
