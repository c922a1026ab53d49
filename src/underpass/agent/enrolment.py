"""Enrolment from the agent's side: apply, wait for a decision, keep the secret (spec 1)."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from underpass.agent.signed_http import GatewayRefused, GatewayUnreachable, SignedHttp
from underpass.agent.state import AgentState
from underpass.core.errors import InvalidRequest, UnderpassError
from underpass.core.jitter import Jitter, backoff, spread
from underpass.wire.applications import decrypt_secret, sign_application

__all__ = ["EnrolmentRefused", "enrol"]

_log = structlog.get_logger(__name__)

POLL = (8.0, 12.0)
"""Seconds between polls: 10 on average."""
REJECTED_WAIT = (60.0, 90.0)
"""Seconds before a rejected agent applies again, at first; doubled each time it is rejected."""
REJECTED_CAP = 3600.0
RETRY_FIRST, RETRY_CAP = 1.0, 30.0

_FINAL = frozenset({
    "join_token_malformed", "join_token_unknown", "join_token_revoked", "join_token_expired",
    "join_token_used_up", "bad_field", "bad_body", "bad_key", "weak_key", "not_rsa",
    "body_too_large",
})  # fmt: skip
_APPLY_AGAIN = frozenset({"unknown_application", "application_superseded"})

Sleep = Callable[[float], Awaitable[None]]


class EnrolmentRefused(UnderpassError):
    """The gateway will not take this application, however often it is sent; exit 3."""

    code, status = "enrolment_refused", 403


async def enrol(
    state: AgentState,
    http: SignedHttp,
    *,
    hostname: str,
    join_token: str | None = None,
    sleep: Sleep = asyncio.sleep,
    jitter: Jitter = spread,
) -> None:
    """Apply until the gateway lets us in; then the state holds the secret.

    A rejection is final for its application: the agent waits at least 60 s, longer each time,
    before it applies anew.

    Args:
        hostname: what we call ourselves.
        join_token: lets us in at once.
        sleep: waits (for tests).

    Raises:
        EnrolmentRefused: a join token that is no good, or a body the gateway finds malformed.
        StateError: the state directory cannot be used.
    """
    applicant = _Applicant(
        state, http, hostname=hostname, join_token=join_token, sleep=sleep, jitter=jitter
    )
    await applicant.run()


class _Applicant:
    def __init__(
        self,
        state: AgentState,
        http: SignedHttp,
        *,
        hostname: str,
        join_token: str | None,
        sleep: Sleep,
        jitter: Jitter,
    ) -> None:
        self._state = state
        self._http = http
        self._hostname = hostname[:253]
        self._join_token = join_token
        self._sleep = sleep
        self._jitter = jitter
        self._retries = backoff(RETRY_FIRST, RETRY_CAP, jitter)
        self._corrected = False

    async def run(self) -> None:
        rejections = 0
        while True:
            answer = await self._until_answered(self._register)
            if answer["status"] == "pending":
                _log.info(
                    "enrolment_pending",
                    apply_id=answer.get("apply_id"),
                    hint="An admin approves it in the console or with `underpass approve`.",
                )
                answer = await self._until_decided(str(answer.get("apply_id", "")))
            if answer["status"] == "approved" and await self._keep(answer):
                return
            if answer["status"] == "rejected":
                low, high = REJECTED_WAIT
                wait = min(self._jitter(low, high) * 2**rejections, REJECTED_CAP)
                rejections = min(rejections + 1, 10)
                _log.warning("enrolment_rejected", again_in=round(wait))
                await self._sleep(wait)

    async def _register(self) -> dict[str, Any]:
        key = await asyncio.to_thread(self._state.private_key)
        body = sign_application(
            key,
            client_id=self._state.client_id(),
            hostname=self._hostname,
            nonce=secrets.token_hex(16),
            timestamp=int(self._http.clock.now()),
            join_token=self._join_token,
        )
        return await self._http.post("/api/v1/register", body)

    async def _until_decided(self, apply_id: str) -> dict[str, Any]:
        """The final answer, or ``{"status": "again"}`` when the application is gone."""
        while True:
            await self._sleep(self._jitter(*POLL))
            try:
                answer = await self._until_answered(
                    lambda: self._http.get("/api/v1/register/status", {"apply_id": apply_id})
                )
            except _ApplyAgain:
                return {"status": "again"}
            if answer["status"] != "pending":
                return answer

    async def _until_answered(self, ask: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Ask until there is an answer with a status, waiting as long as the gateway likes."""
        while True:
            try:
                answer = await ask()
            except GatewayRefused as error:
                wait = self._wait_after(error)
            except GatewayUnreachable as error:
                wait = next(self._retries)
                _log.warning("gateway_unreachable", reason=str(error), again_in=round(wait, 1))
            else:
                self._retries = backoff(RETRY_FIRST, RETRY_CAP, self._jitter)
                if answer.get("status") in {"pending", "approved", "rejected"}:
                    return answer
                wait = next(self._retries)
                _log.warning("enrolment_answer_unknown", again_in=round(wait, 1))
            await self._sleep(wait)

    def _wait_after(self, error: GatewayRefused) -> float:
        if error.code in _FINAL:
            raise EnrolmentRefused(error.message, code=error.code, hint=error.hint) from error
        if error.code in _APPLY_AGAIN:
            raise _ApplyAgain
        if error.code == "clock_skew" and not self._corrected:
            # Once: if it does not help, time is not the trouble, and a person has to look.
            self._corrected = True
            if self._http.clock.correct(error.details.get("server_time")):
                _log.warning("clock_corrected", offset=round(self._http.clock.offset, 1))
                return 0.0
        wait = max(next(self._retries), error.retry_after or 0.0)
        _log.warning(
            "enrolment_refused", code=error.code, reason=error.message, again_in=round(wait, 1)
        )
        return wait

    async def _keep(self, answer: dict[str, Any]) -> bool:
        try:
            key = await asyncio.to_thread(self._state.private_key)
            secret = decrypt_secret(key, str(answer.get("encrypted_secret", "")))
            pinned = base64.b64decode(str(answer.get("gateway_key", "")), validate=True)
        except (InvalidRequest, ValueError) as error:
            wait = self._jitter(*POLL)
            _log.error("enrolment_unusable", reason=str(error), again_in=round(wait, 1))
            await self._sleep(wait)
            return False
        self._state.keep_enrolment(
            secret,
            gateway_key=pinned if len(pinned) == 32 else None,
            server=self._http.server,
        )
        _log.info("enrolled", id=self._state.client_id())
        return True


class _ApplyAgain(Exception):
    """The application is gone; a new one is needed."""
