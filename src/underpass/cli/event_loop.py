"""The event loop the two long-running programs use, and how their failure to start is told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from underpass.cli import exits
from underpass.cli.output import Output
from underpass.core.errors import UnderpassError

__all__ = ["run_loop"]


def run_loop(program: Callable[[], Awaitable[int]]) -> int:
    """Run *program* to its end; a failure to start is one line on stderr and status 2.

    uvloop where it is installed; ``UNDERPASS_LOOP=asyncio`` takes the standard loop.
    """

    async def main() -> int:
        return await program()

    try:
        if os.environ.get("UNDERPASS_LOOP") != "asyncio":
            try:
                import uvloop
            except ImportError:
                pass  # not made for this platform; the standard loop serves as well
            else:
                return uvloop.run(main())
        return asyncio.run(main())
    except UnderpassError as error:
        Output().failure(error)
        return exits.USAGE
    except KeyboardInterrupt:
        return exits.INTERRUPTED
