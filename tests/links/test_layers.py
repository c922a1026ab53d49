"""Which layers a stream has, there and back through an opening's meta."""

from __future__ import annotations

from typing import Any

import pytest

from underpass.core.errors import InvalidRequest
from underpass.links.layers import COMPRESSIONS, Layers


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("e2e", [False, True])
def test_there_and_back(compression: Any, e2e: bool) -> None:
    layers = Layers(compression, e2e)
    assert Layers.from_meta({"agent": "web-1", **layers.to_meta()}) == layers


def test_a_bare_stream_says_nothing() -> None:
    assert Layers().to_meta() == {}
    assert Layers.from_meta({}) == Layers.from_meta({"layers": None}) == Layers()
    assert Layers("zstd", True).to_meta() == {"layers": {"compression": "zstd", "e2e": True}}


@pytest.mark.parametrize(
    "found",
    [
        "zstd", [], 7, {"compression": "brotli"}, {"compression": None}, {"compression": ["zstd"]},
        {"e2e": 1}, {"e2e": "true"}, {"padding": True}, {1: 2},
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(found: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Layers.from_meta({"layers": found})
    assert caught.value.code == "invalid_layers"
