"""Which wrappers lie over a stream: agreed in its opening, put on by both ends.

From the application down: compression, then end-to-end encryption, then resumption, then the
link's stream. Who opens says so in the opening's ``meta["layers"]``; gateways pass that on unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from underpass.core.errors import InvalidRequest

__all__ = ["COMPRESSIONS", "Compression", "Layers"]

Compression = Literal["none", "zstd", "lz4", "gzip", "adaptive"]
"""How the bytes of a stream are compressed; ``adaptive`` stops where that does not pay."""
COMPRESSIONS: Final[tuple[Compression, ...]] = get_args(Compression)

_KNOWN = frozenset({"compression", "e2e"})


@dataclass(frozen=True, slots=True)
class Layers:
    """The wrappers of one stream.

    Attributes:
        compression: how its bytes are compressed.
        e2e: they are encrypted between client and agent; the gateway sees ciphertext.
    """

    compression: Compression = "none"
    e2e: bool = False

    def to_meta(self) -> dict[str, Any]:
        """What to add to an opening's meta: ``{"layers": {…}}``, or nothing for a bare stream."""
        wanted: dict[str, Any] = {}
        if self.compression != "none":
            wanted["compression"] = self.compression
        if self.e2e:
            wanted["e2e"] = True
        return {"layers": wanted} if wanted else {}

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Layers:
        """Read an opening's meta; without ``layers`` in it the stream is bare.

        A layer that only one end puts on would turn bytes into noise, so what is unknown here is
        an error, not something to skip.

        Raises:
            InvalidRequest: code ``invalid_layers``.
        """
        found = meta.get("layers")
        if found is None:
            return _BARE
        if not isinstance(found, dict):
            raise _invalid("layers must be an object")
        wanted = cast("dict[Any, Any]", found)
        if not wanted.keys() <= _KNOWN:
            raise _invalid("it asks for a layer that this version does not know")
        compression, e2e = wanted.get("compression", "none"), wanted.get("e2e", False)
        if not isinstance(compression, str) or compression not in COMPRESSIONS:
            raise _invalid(f"compression must be one of {', '.join(COMPRESSIONS)}")
        if not isinstance(e2e, bool):
            raise _invalid("e2e must be true or false")
        return cls(compression, e2e)


_BARE: Final = Layers()


def _invalid(why: str) -> InvalidRequest:
    return InvalidRequest(f"The stream's layers can't be used: {why}.", code="invalid_layers")
