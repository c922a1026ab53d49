"""The side index: seeking is exact, and a crash leaves a place both files agree on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from underpass.wire.cast_index import CastIndex, Checkpoint, Keyframes, Marker, encode_entries


def test_keyframes_come_every_ten_seconds_or_256_kib() -> None:
    keyframes = Keyframes()
    assert not keyframes.due(9_999_999, 1000)
    assert keyframes.due(10_000_000, 1000)
    assert not keyframes.due(10_000_001, 1000 + 256 * 1024 - 1)
    assert keyframes.due(10_000_001, 1000 + 256 * 1024)


def test_entries_survive_the_round_trip() -> None:
    entries = [
        Checkpoint(1, 100, 50, 20), Marker(2, "detached"), Checkpoint(3, 200, 90, 30, 90, 33, True)
    ]  # fmt: skip
    index = CastIndex.parse(encode_entries(entries), cast_size=200, text_size=30)
    assert index.last == entries[2]
    assert index.keyframes == [entries[2]]
    assert index.markers == [entries[1]]


def test_reading_stops_where_the_files_do_not_agree() -> None:
    good = encode_entries([Checkpoint(1, 100, 50, 20)])
    for bad in (
        encode_entries([Checkpoint(2, 300, 60, 20)]),  # beyond the cast
        encode_entries([Checkpoint(2, 150, 60, 99)]),  # beyond the text
        encode_entries([Checkpoint(2, 90, 60, 20)]),  # backwards
        b'{"t":2,"f":1',  # cut by the crash
        b"nonsense\n",
        b'{"t":-1,"f":1,"o":1}\n',
    ):
        index = CastIndex.parse(good + bad + good, cast_size=200, text_size=50)
        assert index.last == Checkpoint(1, 100, 50, 20), bad
        assert index.consumed == len(good)


def test_seek_finds_the_keyframe_before() -> None:
    keyframes = [Checkpoint(second * 10**6, second * 10, 0, k=True) for second in (10, 20, 30)]
    index = CastIndex(keyframes=keyframes)
    assert index.seek(9_999_999) is None
    assert index.seek(10_000_000) == keyframes[0]
    assert index.seek(29_000_000) == keyframes[1]
    assert index.seek(10**12) == keyframes[2]


@given(st.binary(max_size=400))
def test_any_bytes_parse_to_something(data: bytes) -> None:
    index = CastIndex.parse(data, cast_size=1000, text_size=1000)
    assert 0 <= index.consumed <= len(data)
