"""The TLS sessions this process has kept, so that every link it dials again may resume one."""

from __future__ import annotations

import time
from typing import Final

from underpass.links.quic.sessions import KeptSessions

__all__ = ["SESSIONS"]

SESSIONS: Final = KeptSessions(time.monotonic)
