"""Prints the OpenAPI description of the gateway's routes, without starting a gateway.

``python -m underpass.gateway.openapi``: the console's API client is generated from it
(``npm run api`` in ``web/``), and so can anybody else's be.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from underpass.core.clock import SystemClock
from underpass.core.settings import GatewaySettings
from underpass.core.supervisor import Supervisor
from underpass.gateway.app import make_app
from underpass.gateway.services import Services

__all__ = ["description", "main"]


def description() -> dict[str, Any]:
    """The document ``/openapi.json`` serves."""
    services = Services(
        settings=GatewaySettings(), clock=SystemClock(), supervisor=Supervisor("openapi")
    )
    return make_app(services).openapi()


def main() -> int:
    """Print the document as JSON with sorted keys, so that two runs differ only where routes do."""
    json.dump(description(), sys.stdout, indent=1, sort_keys=True, ensure_ascii=False)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
