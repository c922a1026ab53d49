"""Where linked agents hand in what their ``underpass.yaml`` declares.

========================== ========= ============================================================
``mappings.declare``        agent     ``{"mappings": [...]}``, the whole list, as the API takes
                                      them; answered when it is applied, or refused as a whole
``mappings.declare_again``  gateway   something changed that may let it count now: say it again
========================== ========= ============================================================
"""

from __future__ import annotations

from typing import Any, Final

from underpass.control.declared import Declarations
from underpass.control.live import LiveBus, LiveMessage
from underpass.core.errors import Conflict
from underpass.gateway.registry import LinkRegistry
from underpass.links.link import Link

__all__ = ["AGAIN", "DECLARE", "DeclarationDesk"]

DECLARE: Final = "mappings.declare"
AGAIN: Final = "mappings.declare_again"


class DeclarationDesk:
    """See the module.

    Args:
        registry: the agents' links.
        declarations: decides.
        bus: news of machines whose settings changed.
    """

    def __init__(self, registry: LinkRegistry, declarations: Declarations, bus: LiveBus) -> None:
        self._registry = registry
        self._declarations = declarations
        registry.on_agent_linked(lambda link: link.on_control(DECLARE, self._declared))
        bus.listen(self._heard)

    async def _declared(self, link: Link, body: dict[str, Any]) -> dict[str, Any]:
        if self._registry.agent(link.peer.id) is not link:
            raise Conflict("There is a newer link.", code="displaced")
        return await self._declarations.take(link.peer.id, body)

    def _heard(self, message: LiveMessage) -> None:
        if message.topic == "agent" and message.data.get("change") == "updated":
            link = self._registry.agent(str(message.data.get("id")))
            if link is not None:
                link.notify(AGAIN, {})
