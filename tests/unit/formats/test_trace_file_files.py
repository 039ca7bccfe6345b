"""Files of a rotated recording: their names, what each holds, what is removed and refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.support.ring_batches import LEAF, Call, batch, meta, write_trace

from fentry.errors import BadInput, TraceFileError
from fentry.formats.tracefile import ClockPair, Module, Symbol, TraceReader
from fentry.formats.tracefile_files import Storage, TraceFiles, rotated

MB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.fentry"


def write(files: TraceFiles, first: int, count: int) -> None:
    """Records whose times are their numbers."""
    calls = [Call(time) for time in range(first, first + count)]
    files.writer.write_clock([ClockPair(0, 0, 0)])
    files.writer.write_records(0, first, memoryview(batch(0, first, calls).records))


def times(path: Path) -> list[int]:
    with TraceReader(path) as trace:
        assert trace.complete and not trace.damage
        return [time for events in trace.batches() for time in events.time_ns.tolist()]


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_the_newest_file_has_the_plain_name_and_the_oldest_the_greatest_number(path: Path) -> None:
    files = TraceFiles(path, meta(), Storage(limit_bytes=4 * MB, rotates=True))
    for number in range(3):
        write(files, number * 10, 2)
        if number < 2:
            files.rotate()
    files.writer.close()
    assert names(path) == ["trace.fentry", "trace.fentry.1", "trace.fentry.2"]
    assert times(path) == [20, 21]
    assert times(path.with_name("trace.fentry.1")) == [10, 11]
    assert times(path.with_name("trace.fentry.2")) == [0, 1]
    assert (files.records_written, files.nr_files, files.removed) == (6, 3, 0)


def test_beyond_the_count_the_oldest_are_removed_and_counted(path: Path) -> None:
    files = TraceFiles(path, meta(), Storage(limit_bytes=4 * MB, rotates=True, keep=2))
    for number in range(4):
        write(files, number * 10, number + 1)
        if number < 3:
            files.rotate()
    files.writer.close()
    assert names(path) == ["trace.fentry", "trace.fentry.1"]
    assert times(path.with_name("trace.fentry.1")) == [20, 21, 22]
    assert (files.records_written, files.nr_files) == (10, 4)
    assert (files.removed, files.removed_records) == (2, 3)


def test_each_file_has_the_names_and_says_which_part_it_is(path: Path) -> None:
    files = TraceFiles(path, meta(), Storage(True, 4 * MB, True))
    files.writer.write_modules([Module("/usr/bin/demo", "ab12", 0x400000, 0x402000)])
    files.writer.write_symbols([Symbol(LEAF, 48, "leaf", 0, 6)])
    files.rotate()
    files.writer.write_symbols([Symbol(LEAF + 64, 48, "later", 0, 70)])
    files.rotate()
    files.writer.close()
    with TraceReader(path) as last, TraceReader(path.with_name("trace.fentry.2")) as first:
        assert last.symbol_names == [b"leaf", b"later"]
        assert last.symbols["offset"].tolist() == [6, 70]
        assert [module.path for module in last.modules] == ["/usr/bin/demo"]
        assert first.symbol_names == [b"leaf"]
        assert (first.meta.part, last.meta.part) == (0, 2)
        assert len(first.meta.recording) == 16
        assert first.meta.recording == last.meta.recording


@pytest.mark.parametrize("compress", [True, False])
def test_a_file_with_room_stays_within_its_size(path: Path, compress: bool) -> None:
    content = np.random.default_rng(7).integers(0, 256, 24 * 1000, np.uint8)  # nothing compresses
    limit = 4 * MB
    files = TraceFiles(path, meta(), Storage(compress, limit, True))
    while files.has_room(1000):
        files.writer.write_records(0, 0, content.data)
    files.writer.close()
    assert limit - MB < path.stat().st_size <= limit


def test_without_a_limit_there_is_always_room(path: Path) -> None:
    files = TraceFiles(path, meta(), Storage())
    assert files.has_room(1 << 50)
    files.writer.close()


def test_an_earlier_recording_is_rotated_and_not_replaced(path: Path) -> None:
    write_trace(path, [batch(0, 0, [Call(1)])])
    shutil.copy(path, path.with_name("trace.fentry.1"))
    files = TraceFiles(path, meta(), Storage(limit_bytes=4 * MB, rotates=True, keep=3))
    assert names(path) == ["trace.fentry", "trace.fentry.1", "trace.fentry.2"]
    write(files, 50, 1)
    files.rotate()
    files.writer.close()
    assert [times(path.with_name(name)) for name in names(path)] == [[], [50], [1]]
    assert files.removed == 0  # of this recording


def test_a_file_that_is_no_trace_is_neither_renamed_nor_removed(path: Path) -> None:
    write_trace(path, [])
    thesis = path.with_name("trace.fentry.1")
    thesis.write_text("my thesis")
    with pytest.raises(TraceFileError) as raised:
        TraceFiles(path, meta(), Storage(limit_bytes=4 * MB, rotates=True, keep=2))
    assert raised.value.cause == "it exists and is not a fentry trace"
    assert str(thesis) in raised.value.what
    with pytest.raises(TraceFileError):
        rotated(path)
    assert (names(path), thesis.read_text()) == (["trace.fentry", "trace.fentry.1"], "my thesis")


def test_where_no_next_file_can_be_made_the_one_before_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    files = TraceFiles(folder / "t", meta(), Storage(limit_bytes=4 * MB, rotates=True))
    write(files, 0, 5)
    folder.rename(tmp_path / "away")
    with pytest.raises(TraceFileError):
        files.rotate()
    assert files.records_written == 5
    files.writer.close()
    assert len(times(tmp_path / "away" / "t")) == 5


def test_a_folder_in_the_way_of_the_next_file_is_an_error_that_loses_nothing(path: Path) -> None:
    files = TraceFiles(path, meta(), Storage(limit_bytes=4 * MB, rotates=True))
    write(files, 0, 5)
    path.with_name("trace.fentry.1").mkdir()
    with pytest.raises(TraceFileError) as raised:
        files.rotate()
    assert "trace.fentry.1" in raised.value.what
    assert (times(path), files.records_written) == ([0, 1, 2, 3, 4], 5)


@pytest.mark.parametrize(("limit", "keep"), [(4 * MB - 1, 0), (1, 0), (4 * MB, 1)])
def test_limits_that_cannot_be_kept_are_refused(limit: int, keep: int) -> None:
    with pytest.raises(BadInput):
        Storage(limit_bytes=limit, rotates=True, keep=keep)


def test_what_does_not_compress_is_no_longer_than_the_limit_assumes(path: Path) -> None:
    files = TraceFiles(path, meta(record_bytes=16), Storage(compress=True))
    before = files.writer.bytes_written
    noise = np.random.default_rng(8).integers(0, 256, 16 * 65536, np.uint8)
    files.writer.write_records(0, 0, noise.data)
    assert files.writer.bytes_written - before <= 65536 * 25
    files.writer.close()
