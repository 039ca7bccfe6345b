"""The Common Trace Format as babeltrace2 reads it."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.machine import need_tool
from tests.support.ring_batches import Batch, Call, batch, meta, write_trace

from fentry.cli.__main__ import words
from fentry.formats.tracefile import ClockPair, CpuLosses

pytestmark = pytest.mark.oracle

CALLS = [
    batch(1, 0, [Call(1234_567_890_000), Call(1234_567_892_001)]),
    batch(0, 0, [Call(1234_567_891_000, key=1, parent_ip=0x7F0000001234, tid=77)]),
]
LEAF_OF_MAIN = (
    '{ ip = 0x401106, function = ( "leaf" : container = 1 ), '
    'parent = ( "main" : container = 2 ), parent_ip = 0x401146 }'
)
BASH = '{ tid = 1234, comm = ( "bash" : container = 1 ) }'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exported(*arguments: str) -> tuple[list[str], list[str]]:
    """What babeltrace2 prints of trace.ctf, and what it warns of, without the UUID of the trace."""
    result = CliRunner().invoke(words, ["export", "ctf", "--force", *arguments])
    assert result.exit_code == 0, result.output
    command = [need_tool("babeltrace2"), "--clock-seconds", "--no-delta", "trace.ctf"]
    read = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert read.returncode == 0, read.stderr
    warnings = [line.partition(" in trace ")[0] for line in read.stderr.splitlines() if line]
    return read.stdout.splitlines(), warnings


def test_events_have_time_thread_addresses_and_names() -> None:
    write_trace(Path("trace.fentry"), CALLS)
    lines, warnings = exported()

    assert lines == [
        "[1600001234.567890000] box function: { cpu_id = 1 }, " + BASH + ", " + LEAF_OF_MAIN,
        "[1600001234.567891000] box function: { cpu_id = 0 }, "
        '{ tid = 77, comm = ( "<...>" : container = 0 ) }, '
        '{ ip = 0x401136, function = ( "main" : container = 2 ), '
        'parent = ( "[unknown]" : container = 0 ), parent_ip = 0x7F0000001234 }',
        "[1600001234.567892001] box function: { cpu_id = 1 }, " + BASH + ", " + LEAF_OF_MAIN,
    ]
    assert warnings == []
    assert exported("-F", "main")[0] == lines[1:2]


def test_the_clock_is_ahead_by_realtime_minus_monotonic() -> None:
    pair = ClockPair(2_000_000_000, 1_000_000_000, 1_600_000_001_250_000_000)
    write_trace(Path("trace.fentry"), CALLS, clock=pair)

    assert exported("--head", "1")[0][0].startswith("[1600001234.817890000] ")


def test_records_of_16_bytes_have_no_parent() -> None:
    one = batch(0, 0, [Call(5)], record_bytes=16)
    write_trace(Path("trace.fentry"), [one], of=meta(record_bytes=16))

    assert exported()[0] == [
        "[1600000000.000000005] box function: { cpu_id = 0 }, " + BASH + ", "
        '{ ip = 0x401106, function = ( "leaf" : container = 1 ) }'
    ]


def test_losses_of_a_cpu_are_told_with_events_and_without() -> None:
    losses = [
        CpuLosses(0, 1, 0, 0, 0), CpuLosses(1, 2, 1, 2, 4), CpuLosses(3, 0, 5, 0, 0),
    ]  # fmt: skip
    write_trace(Path("trace.fentry"), CALLS, losses=losses)
    lines, warnings = exported()

    assert len(lines) == 3
    assert sorted(warnings) == [
        "WARNING: Tracer discarded 5 events between [1600000000.000000000] and "
        "[1600000000.000000000]",
        "WARNING: Tracer discarded 7 events between [1600001234.567890000] and "
        "[1600001234.567892001]",
    ]


def test_a_trace_without_events_is_read_as_one() -> None:
    write_trace(Path("trace.fentry"), [])

    assert exported() == ([], [])
    assert [path.name for path in Path("trace.ctf").iterdir()] == ["metadata"]


def test_events_without_times_have_a_count_and_no_clock() -> None:
    calls = [batch(1, 1024, [Call(512), Call(513)]), batch(0, 1024, [Call(512, key=1)])]
    counted = dataclasses.replace(meta(), clock="percpu-counter")
    write_trace(Path("trace.fentry"), calls, of=counted, losses=[CpuLosses(1, 2, 3, 0, 0)])
    lines, warnings = exported()

    assert [line.partition(", comm")[0] for line in lines] == [
        "box function: { first_count = 0, last_count = 0, cpu_id = 0 }, { count = 0, tid = 1234",
        "box function: { first_count = 0, last_count = 2, cpu_id = 1 }, { count = 0, tid = 1234",
        "box function: { first_count = 0, last_count = 2, cpu_id = 1 }, { count = 2, tid = 1234",
    ]
    assert warnings == ["WARNING: Tracer discarded 3 events (unknown time range)"]


# babeltrace2 prints a question mark with a backslash before it.
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('say "hi"', r"say \"hi\""),
        (r"C:\new\x41", r"C:\\new\\x41"),
        ("a\nb\x1b[31m", r"a\?b\?[31m"),
        ("__libc_start", "__libc_start"),
        ("operator/*(int)// %d ??/", r"operator/*(int)// %d \?\?/"),
        ("größe", "größe"),
        ("bad\udcff", "bad\N{REPLACEMENT CHARACTER}"),
        ("enum } ; $x", "enum } ; $x"),
        ("", ""),
    ],
)
def test_odd_names_are_read_back(name: str, shown: str) -> None:
    comm = name.encode("utf-8", "surrogateescape")[:15]
    of = dataclasses.replace(meta(), exe=name, host=name)
    write_trace(Path("trace.fentry"), CALLS, names=(name, "main"), comm=comm, of=of)
    (line,) = exported("--head", "1")[0]

    assert f'function = ( "{shown}" : container = ' in line


def test_functions_of_one_name_are_one_label() -> None:
    write_trace(Path("trace.fentry"), CALLS, names=("same", "same"))
    lines, _ = exported()

    assert [line.partition("{ ip")[2].partition(", parent")[0] for line in lines] == [
        ' = 0x401106, function = ( "same" : container = 1 )',
        ' = 0x401136, function = ( "same" : container = 1 )',
        ' = 0x401106, function = ( "same" : container = 1 )',
    ]


def test_what_is_whole_of_a_damaged_trace_is_written(folder: Path) -> None:
    path = folder / "trace.fentry"
    write_trace(path, CALLS)
    data = bytearray(path.read_bytes())
    data[data.index(b"bash")] ^= 0xFF  # the names of threads
    data[data.rindex(b"leaf")] ^= 0xFF  # the names of functions
    path.write_bytes(data)
    lines, _ = exported()

    assert lines[0] == (
        "[1600001234.567890000] box function: { cpu_id = 1 }, "
        '{ tid = 1234, comm = ( "<...>" : container = 0 ) }, '
        '{ ip = 0x401106, function = ( "[unknown]" : container = 0 ), '
        'parent = ( "[unknown]" : container = 0 ), parent_ip = 0x401146 }'
    )
    assert len(lines) == 3


def test_torn_records_are_left_out() -> None:
    good = batch(0, 1024, [Call(1), Call(2)]).records
    stale = batch(0, 0, [Call(3)]).records
    write_trace(Path("trace.fentry"), [Batch(0, 1024, good[:24] + stale)], close=False)

    assert len(exported()[0]) == 1


def test_an_event_out_of_its_order_has_the_time_of_the_one_before() -> None:
    calls = [Call(1_000 + number) for number in range(80_000)]
    calls[-1] = Call(7)  # later than what is held back for sorting
    sizes = meta(capacity=1 << 17)
    write_trace(Path("trace.fentry"), [batch(0, 0, calls, capacity=1 << 17)], of=sizes)
    lines, _ = exported()
    times = [line[1:21] for line in lines]

    assert len(times) == 80_000
    assert times == sorted(times)
    assert times[0] == "1600000000.000001000"
