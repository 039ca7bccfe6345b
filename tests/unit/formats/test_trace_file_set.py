"""Several files of one recording as one trace: order, sums, and what does not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.support.ring_batches import LEAF, Call, batch, meta, write_trace

from fentry.cli.report import report
from fentry.errors import TraceFileError
from fentry.formats.tracefile import (
    ClockPair,
    CpuLosses,
    Module,
    Symbol,
    Task,
    TraceReader,
    TraceSet,
)
from fentry.formats.tracefile_files import Storage, TraceFiles

# Of each file: {cpu: (first position, times)}; CPU 1 is read later, and so more of it is in a file.
PARTS = (
    {0: (0, [10, 20]), 1: (0, [11, 25, 31])},
    {0: (2, [30, 40]), 1: (3, [32, 41])},
    {0: (4, [50])},
)
TIMES = [10, 11, 20, 25, 30, 31, 32, 40, 41, 50]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trace.fentry"
    files = TraceFiles(path, meta(), Storage(limit_bytes=4 << 20, rotates=True))
    files.writer.write_modules([Module("/usr/bin/demo", "ab12", 0x400000, 0x402000)])
    files.writer.write_symbols([Symbol(LEAF, 48, "leaf", 0, 6)])
    for number, part in enumerate(PARTS):
        if number:
            files.rotate()
        writer = files.writer
        writer.write_clock([ClockPair(0, 0, 0)])
        writer.write_sites(np.array([0], np.uint32), np.array([LEAF], np.uint64))
        writer.write_tasks([Task(1234, b"bash", 0), Task(1000 + number, b"own", 0)])
        for cpu, (first, times) in part.items():
            one = batch(cpu, first, [Call(time) for time in times])
            writer.write_records(cpu, first, memoryview(one.records))
        writer.write_losses([CpuLosses(0, len(part[0][1]), number, 0, 1)])
        writer.write_event("modules", 1, loaded=["/x"], functions=number, not_before_ns=0)
    files.writer.close()
    return path


def of(path: Path, *numbers: int) -> list[Path]:
    return [path.with_name(f"{path.name}.{n}") if n else path for n in numbers]


def times(trace: TraceSet, **bounds: int) -> list[int]:
    return [time for events in trace.merged(**bounds) for time in events.time_ns.tolist()]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2, 1)])
def test_events_of_all_files_come_in_order_of_time(path: Path, order: tuple[int, ...]) -> None:
    with TraceSet(of(path, *order)) as trace:
        assert times(trace) == TIMES
        assert times(trace, start_ns=31, end_ns=41) == [31, 32, 40]
        in_files = [time for events in trace.batches() for time in events.time_ns.tolist()]
        assert in_files == [10, 20, 11, 25, 31, 30, 40, 32, 41, 50]
        assert (trace.records, trace.torn, trace.late, trace.complete) == (10, 0, 0, True)
        assert trace.damage == []


def test_counts_are_summed_and_names_told_once(path: Path) -> None:
    with TraceSet.rotated(path) as trace:
        assert trace.losses == [CpuLosses(0, 5, 3, 0, 3)]
        assert trace.symbol_names == [b"leaf"]
        assert [task.tid for task in trace.tasks] == [1234, 1000, 1001, 1002]
        assert [event["functions"] for event in trace.events] == [0, 1, 2]
        assert trace.meta.part == 2


def test_a_file_between_two_that_is_missing_is_reported_and_older_ones_are_not(path: Path) -> None:
    with TraceSet(of(path, 0, 2)) as trace:
        assert [one.what for one in trace.damage] == [
            "1 files of the recording are missing before trace.fentry"
        ]
        assert times(trace) == [10, 11, 20, 25, 31, 50]
    with TraceSet(of(path, 0, 1)) as trace:
        assert trace.damage == []


def test_damage_is_told_with_its_file(path: Path) -> None:
    middle = of(path, 1)[0]
    middle.write_bytes(middle.read_bytes()[:-80])
    with TraceSet.rotated(path) as trace:
        assert times(trace) == TIMES
        assert not trace.complete
        assert all(one.what.endswith("(trace.fentry.1)") for one in trace.damage)
        assert trace.damage


def test_files_of_different_recordings_are_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.fentry"
    write_trace(other, [])
    for files in ([path, other], [other, path]):
        with pytest.raises(TraceFileError, match="as one trace") as raised:
            TraceSet(files)
        assert "are not files of one recording" in raised.value.cause
    again = tmp_path / "copy"
    again.write_bytes(path.read_bytes())
    with pytest.raises(TraceFileError) as raised:
        TraceSet([path, again])
    assert "are the same part of it" in raised.value.cause


def test_files_of_an_earlier_recording_behind_them_are_left_out(path: Path) -> None:
    write_trace(path.with_name("trace.fentry.3"), [batch(0, 0, [Call(1)])])
    with TraceSet.rotated(path) as trace:
        assert times(trace) == TIMES


def test_report_shows_several_files_as_one(path: Path) -> None:
    given = [word for file in of(path, 1, 0, 2) for word in ("-i", str(file))]
    for words in (given, ["-i", str(path), "--rotated"]):
        result = CliRunner().invoke(report, words)
        assert result.exit_code == 0, result.output
        lines = [line for line in result.stdout.splitlines() if line[0] != "#"]
        assert len(lines) == 10
        assert "entries-in-buffer/entries-written: 10/10 " in result.stdout
        assert result.stderr.startswith("10 of 10 events (clock tsc), 3 dropped, 3 incomplete, no")
    counts = CliRunner().invoke(report, [*given, "--counts", "--json"])
    assert '"calls":10' in counts.stdout.replace(" ", "")


@pytest.mark.parametrize(
    "words", [("-i", "a", "-i", "-"), ("-i", "a", "-i", "b", "--rotated"), ("-i", "-", "--rotated")]
)
def test_what_cannot_be_several_files_is_refused(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(report, words)
    assert result.exit_code == 2
    assert "try: -i FILE for each file" in result.stderr


def test_one_file_of_a_set_is_a_trace_by_itself(path: Path) -> None:
    with TraceReader(of(path, 1)[0]) as trace:
        found = [time for events in trace.merged() for time in events.time_ns.tolist()]
        assert found == [30, 32, 40, 41]
        assert (trace.symbol_names, trace.losses) == ([b"leaf"], [CpuLosses(0, 2, 1, 0, 1)])
