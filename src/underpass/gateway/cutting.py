"""Cuts what a person no longer may have: their terminals and links, within moments."""

from __future__ import annotations

from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from underpass.control.live import RESYNC, LiveMessage
from underpass.core.errors import UnderpassError
from underpass.gateway.services import Services
from underpass.gateway.terminals.viewer import Outcome

__all__ = ["Cutting"]

_log = structlog.get_logger(__name__)

CHECK_EVERY: Final = 4.0
"""Seconds after which every client link's login is looked at again: expiry tells nobody, and the
promise is five."""

_REASONS: Final = {
    "disabled": "Your account was disabled.",
    "deleted": "Your account was deleted.",
    "demoted": "Your role was changed.",
    "password_changed": "Your password was changed.",
}
"""What people are told on the way out."""

_CREDENTIALS: Final = frozenset({"signed_out", "token_revoked", "password_changed"})
_LOGIN_CHANGED: Final = Outcome(
    "detached",
    code="login_changed",
    message="One of your logins has ended; reconnecting with yours.",
    close_code=1012,  # clients come back with a new ticket, which needs a login that works
)


class Cutting:
    """Listens for changes of people's rights (topic ``user``) and acts on what is running.

    ``cut: true`` (disabled, demoted, deleted, password set) ends the person's terminals and links.
    Anything else (signed out, token revoked) ends the links whose credential stopped working, and
    makes terminals show a fresh ticket.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self) -> None:
        """Work until the bus closes."""
        with self._services.bus.subscribe(_wanted, limit=4096) as news:
            while True:
                message = await news.next(CHECK_EVERY)
                if message is None and news.closed:
                    return
                try:
                    if message is None or message.topic == RESYNC:
                        await self._check_links(None)
                    else:
                        await self._act(message)
                except (UnderpassError, SQLAlchemyError, OSError) as error:
                    _log.error("cutting_failed", error=str(error)[:300])

    async def _act(self, message: LiveMessage) -> None:
        user_id = str(message.data["user_id"])
        reason = _REASONS.get(str(message.data.get("reason")), "Your access has changed.")
        if not message.data.get("cut"):
            if message.data.get("reason") in _CREDENTIALS:
                self._ask_again(user_id)
            await self._check_links(user_id)
            return
        services = self._services
        links = await services.registry.close_user(user_id, "unauthenticated", reason)
        if services.terminals is not None:
            await services.terminals.close_for_user(user_id, reason)
        _log.info("person_cut", user=user_id, reason=reason, links=links)

    def _ask_again(self, user_id: str) -> None:
        """Have every terminal of the person show a fresh ticket.

        A ticket does not know which login it was made with. Whoever is still signed in gets
        another and resumes where they were; whoever held the ended login is out.
        """
        terminals = self._services.terminals
        for hub in tuple(terminals.hubs.values()) if terminals is not None else ():
            for viewer in tuple(hub.viewers):
                if viewer.subject.user_id == user_id:
                    viewer.cut(_LOGIN_CHANGED)

    async def _check_links(self, user_id: str | None) -> None:
        """Close the links whose login no longer counts; each login is looked up once."""
        services = self._services
        valid: dict[tuple[str, str | None], bool] = {}
        for client in services.registry.clients():
            subject = client.subject
            if user_id is not None and subject.user_id != user_id:
                continue
            login = subject.user_id, subject.credential_id
            if login not in valid:
                valid[login] = await services.sign_in.still_valid(subject)
            if not valid[login]:
                await client.link.close("unauthenticated", "Your login has ended.")
                await services.events.record("link.cut", actor=subject, rule="credential")


def _wanted(message: LiveMessage) -> bool:
    return message.topic == "user"
