"""Puts on the layers (``links/layers.py``) that an opening asks for, at the agent's end."""

from __future__ import annotations

from underpass.core.errors import InvalidRequest
from underpass.links.compression import compressed
from underpass.links.layers import Layers
from underpass.links.link import Opening
from underpass.links.stream import Stream

__all__ = ["accept_layered", "wanted_layers"]


def wanted_layers(opening: Opening) -> Layers:
    """The layers *opening* asks for; look before anything is connected.

    Raises:
        InvalidRequest: code ``invalid_layers``.
    """
    layers = Layers.from_meta(opening.meta)
    if layers.e2e:
        raise InvalidRequest(
            "This agent does not encrypt streams end to end.", code="invalid_layers"
        )
    return layers


def accept_layered(opening: Opening, layers: Layers) -> Stream:
    """Accept *opening*; what is written to the stream and read from it is the application's."""
    return compressed(opening.accept(), layers.compression)
