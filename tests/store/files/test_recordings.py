"""The store: ids only, ranges exact, seeking without reading, searching, tidying up."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from underpass.core.errors import NotFound
from underpass.core.ids import new_id
from underpass.store.files.places import places
from underpass.store.files.recording_file import Marked, Output
from underpass.store.files.recordings import LocalRecordings
from underpass.wire.asciicast import CastHeader, CastReader

HEADER = CastHeader(80, 24)


@pytest.mark.parametrize(
    "evil",
    [
        *("../../etc/passwd", "..", "", "%2e%2e", "a/b", "\0", "x" * 5000),
        "0E78BD56-D9FB-4F23-BF4F-A67F74327B23",
        "0e78bd56-d9fb-4f23-bf4f-a67f74327b23/../x",
        "0e78bd56-d9fb-4f23-bf4f-a67f74327b23\n",
    ],
)
def test_what_is_not_an_id_is_not_found(tmp_path: Path, evil: str) -> None:
    store = LocalRecordings(tmp_path)
    for use in (store.size, store.index, store.delete, store.interrupt, store.whole_size):
        with pytest.raises(NotFound):
            use(evil)
    with pytest.raises(NotFound):
        store.read(evil, 0, 1)


def test_a_symbolic_link_does_not_lead_out(tmp_path: Path) -> None:
    recording_id = new_id()
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    store = LocalRecordings(root)
    (root / recording_id[:2]).symlink_to(outside)
    with pytest.raises(NotFound):
        places(store.root, recording_id)


def test_reading_sizes_and_ranges(tmp_path: Path) -> None:
    store = LocalRecordings(tmp_path)
    recording_id = new_id()
    with pytest.raises(NotFound):
        store.size(recording_id)
    with pytest.raises(NotFound):
        store.read(recording_id, 0, 5)
    file = store.create(recording_id, HEADER)
    file.write([Output(1, b"hello")])
    file.finish()
    data = file.where.cast.read_bytes()
    assert store.size(recording_id) == len(data) == store.whole_size(recording_id)
    assert store.read(recording_id, 3, 7) == data[3:10]
    assert store.read(recording_id, len(data), 7) == b""
    assert store.free_bytes() > 0
    assert store.delete(recording_id) >= len(data)
    assert store.delete(recording_id) == 0
    assert store.search(recording_id, "hello") == []


def test_a_two_hour_recording_is_seeked_without_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalRecordings(tmp_path)
    recording_id = new_id()
    file = store.create(recording_id, HEADER)
    for second in range(7200):
        file.write([Output(second * 1_000_000, b"line %d " % second + b"x" * 2000 + b"\r\n")])
        if second % 2 == 0:
            file.flush()
    file.finish()
    size = store.size(recording_id)
    assert size > 14_000_000
    read = 0
    real = store.read

    def counted(name: str, offset: int, count: int) -> bytes:
        nonlocal read
        data = real(name, offset, count)
        read += len(data)
        return data

    monkeypatch.setattr(store, "read", counted)
    target = 6480 * 1_000_000
    index = store.index(recording_id)
    index_bytes = file.where.index.stat().st_size
    frame = index.seek(target)
    assert frame is not None
    assert target - frame.t <= 11_000_000
    piece = store.read(recording_id, frame.f, 64 * 1024)
    reader = CastReader()
    reader.feed(store.read(recording_id, 0, 256).split(b"\n")[0] + b"\n")
    events = reader.feed(piece[: piece.rfind(b"\n") + 1])
    assert frame.t <= events[0].time_us <= target + 1_000_000
    assert events[-1].time_us >= target
    assert read + index_bytes < 200_000, (read, index_bytes)


def test_search_finds_words_typed_slowly_and_across_blocks(tmp_path: Path) -> None:
    store = LocalRecordings(tmp_path)
    recording_id = new_id()
    file = store.create(recording_id, HEADER)
    for index, letter in enumerate("needle"):
        file.write([Output(index * 500_000, letter.encode())])
        file.flush()
    file.write([Output(9_000_000, b"\r\n")])
    for index in range(3000):
        file.write([Output(10_000_000 + index * 1000, b"\x1b[3%dmfiller %d" % (index % 8, index)
                           + b"y" * 500 + b"\x1b[0m\r\n")])  # fmt: skip
    file.write([Output(60_000_000, b"\x1b]0;hidden title\x07NEEDLE again\r\n"), Marked(1, "x")])
    file.finish()
    hits = store.search(recording_id, "needle")
    assert [(hit.time_us, hit.line) for hit in hits] == [
        (0, "needle"), (60_000_000, "NEEDLE again"),
    ]  # fmt: skip
    assert store.search(recording_id, "hidden title") == []
    assert len(store.search(recording_id, "filler", limit=7)) == 7
    assert store.search(recording_id, "filler 2999")[0].time_us >= 12_900_000


def test_interrupting_cuts_the_half_line_and_sums_up(tmp_path: Path) -> None:
    store = LocalRecordings(tmp_path)
    recording_id = new_id()
    file = store.create(recording_id, HEADER)
    file.write([Output(2_500_000, b"hello")])
    file.flush()
    file.close()
    whole = store.size(recording_id)
    with file.where.cast.open("ab") as raw:
        raw.write(b'[3.0,"o","half' + b"x" * 70_000)
    assert store.whole_size(recording_id) == whole
    finished = store.interrupt(recording_id)
    data = file.where.cast.read_bytes()
    assert (finished.size, finished.duration) == (whole, 2.5)
    assert finished.sha256 == hashlib.sha256(data).hexdigest()
    file.where.cast.write_bytes(b"nonsense\n")
    assert store.interrupt(recording_id).duration == 0.0
    file.where.cast.write_bytes(b"nonsense")
    assert store.interrupt(recording_id).size == 0
