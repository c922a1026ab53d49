"""Recordings on disk: continuous across any crash, capped, honest about what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from underpass.core.ids import new_id
from underpass.store.files import recording_file
from underpass.store.files.places import places
from underpass.store.files.recording_file import (
    Exited,
    Marked,
    Output,
    RecordingFile,
    RecordingLost,
    Resized,
    Skipped,
)
from underpass.store.files.recordings import LocalRecordings
from underpass.wire.asciicast import CastHeader, CastReader

HEADER = CastHeader(80, 24, 1_700_000_000, "bash", "ann on box")


def create(tmp_path: Path, **options: int) -> RecordingFile:
    return RecordingFile.create(places(tmp_path.resolve(), new_id()), HEADER, **options)


def shown(path: Path) -> str:
    reader = CastReader()
    return "".join(event.data for event in reader.feed(path.read_bytes()) if event.code == "o")


def test_the_header_is_there_at_once_and_files_are_private(tmp_path: Path) -> None:
    file = create(tmp_path)
    assert json.loads(file.where.cast.read_text())["title"] == "ann on box"
    assert file.where.cast.stat().st_mode & 0o777 == 0o600
    assert file.where.cast.parent.stat().st_mode & 0o777 == 0o700
    file.close()
    file.close()


def test_what_is_written_is_there_after_a_flush(tmp_path: Path) -> None:
    file = create(tmp_path)
    file.write([Output(1, b"one "), Resized(2, 90, 33), Marked(3, "detached"), Output(4, b"two")])
    assert file.gathered
    file.flush()
    file.flush()
    assert shown(file.where.cast) == "one two"
    assert file.output_offset == 7
    finished = file.finish()
    data = file.where.cast.read_bytes()
    assert finished.sha256 == hashlib.sha256(data).hexdigest()
    assert finished.size == len(data)
    assert finished.duration == 0.000004


def test_an_unfinished_character_is_not_counted_until_it_is_written(tmp_path: Path) -> None:
    file = create(tmp_path)
    file.write([Output(1, b"a\xe6\xbc")])
    file.flush()
    assert file.output_offset == 1
    where = file.where
    file.close()
    again = RecordingFile.reopen(where, HEADER)
    assert again.output_offset == 1
    again.write([Output(2, "漢z".encode())])
    again.finish()
    assert shown(where.cast) == "a漢z"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), cast_cut=st.integers(0, 400), index_cut=st.integers(0, 200))
def test_a_crash_anywhere_leaves_a_place_to_go_on_from(
    tmp_path: Path, seed: int, cast_cut: int, index_cut: int
) -> None:
    """Whatever of the newest writes did not reach the disk: no byte is lost or doubled."""
    rng = random.Random(seed)
    output = "".join(rng.choice("aé漢🎉\n\x1b[31m") for _ in range(400)).encode()
    file = create(tmp_path)
    position, at = 0, 0
    sizes: list[tuple[int, int]] = []
    while position < len(output):
        step = rng.randint(1, 40)
        at += rng.randint(0, 3_000_000)
        file.write([Output(at, output[position : position + step])])
        position += step
        if rng.random() < 0.5:
            file.flush()
            sizes.append((file.where.cast.stat().st_size, file.where.index.stat().st_size))
    where = file.where
    file.close()
    # Only what came after the first flush may be missing: that one had a second to get there.
    if not sizes:
        return
    for path, cut, low in (
        (where.cast, cast_cut, sizes[0][0]),
        (where.index, index_cut, sizes[0][1]),
    ):
        os.truncate(path, max(low, path.stat().st_size - cut))
    again = RecordingFile.reopen(where, HEADER)
    assert again.output_offset <= len(output)
    again.write([Output(at, output[again.output_offset :])])
    again.finish()
    assert shown(where.cast) == output.decode()
    times = [event.time_us for event in CastReader().feed(where.cast.read_bytes())]
    assert times == sorted(times)


def test_skipped_output_is_said(tmp_path: Path) -> None:
    file = create(tmp_path)
    file.write([Output(1, b"a\xe6"), Skipped(2, 1000), Output(3, b"b")])
    file.flush()
    assert file.output_offset == 1003
    file.finish()
    assert "[output skipped 1000 bytes]" in file.where.cast.read_text()
    assert shown(file.where.cast) == "a\ufffdb"


def test_the_limit_stops_output_but_not_marks(tmp_path: Path) -> None:
    file = create(tmp_path, limit=2000)
    for index in range(100):
        file.write([Output(index, b"x" * 100)])
    file.write([Marked(200, "detached"), Skipped(201, 5)])
    file.flush()
    assert file.output_offset == 10_005
    finished = file.finish()
    text = file.where.cast.read_text()
    assert finished.size < 2500
    assert text.count("recording limit reached") == 1
    assert "detached" in text


def test_a_full_disk_is_an_error_and_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = create(tmp_path)
    file.write([Output(1, b"kept")])
    file.flush()
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 10:
            return real(fd, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording_file.os, "write", full)
    file.write([Output(2, b"lost")])
    with pytest.raises(RecordingLost, match="No space left"):
        file.flush()
    monkeypatch.undo()
    assert shown(file.where.cast) == "kept"
    assert file.where.cast.read_bytes().endswith(b"\n")


def test_what_can_not_be_made_or_reopened(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    with pytest.raises(RecordingLost):
        RecordingFile.create(places((tmp_path / "blocked").resolve(), new_id()), HEADER)
    with pytest.raises(RecordingLost):
        RecordingFile.reopen(places(tmp_path.resolve(), new_id()), HEADER)
    file = create(tmp_path)
    file.close()
    file.where.index.write_bytes(b"")
    with pytest.raises(RecordingLost):
        RecordingFile.reopen(file.where, HEADER)


def test_the_exit_status_is_an_event_of_version_3(tmp_path: Path) -> None:
    file = create(tmp_path, version=3)
    file.write([Output(1, b"x\xc3"), Exited(2, "7")])
    file.finish()
    events = CastReader().feed(file.where.cast.read_bytes())
    assert [(event.code, event.data) for event in events] == [
        ("o", "x"), ("o", "\ufffd"), ("x", "7"),
    ]  # fmt: skip


def test_a_finished_index_keeps_keyframes_and_markers_only(tmp_path: Path) -> None:
    file = create(tmp_path)
    for second in range(100):
        file.write([Output(second * 1_000_000, b"tick\n")])
        if second == 50:
            file.write([Marked(second * 1_000_000, "half")])
        file.flush()
    busy = file.where.index.stat().st_size
    file.finish()
    index = LocalRecordings(tmp_path).index(file.where.cast.stem)
    assert file.where.index.stat().st_size < busy / 4
    assert [frame.t // 1_000_000 for frame in index.keyframes] == list(range(10, 100, 10))
    assert [mark.m for mark in index.markers] == ["half"]
