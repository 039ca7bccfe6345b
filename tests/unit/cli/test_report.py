"""fentry report: what goes to stdout, what to stderr, and the exit status."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.ring_batches import MAIN, Batch, Call, batch, meta, write_trace

from fentry.cli.report import report
from fentry.errors import BadInput
from fentry.formats.tracefile import CpuLosses, TraceReader

CALLS = [
    batch(1, 0, [Call(1234_567_890_000), Call(1234_567_892_000)]),
    batch(
        0,
        0,
        [
            Call(1234_567_891_000, key=1, parent_ip=0x7F0000001234),
            Call(1234_567_893_000, tid=77),
        ],
    ),
]

HEADER = """\
# tracer: function
#
# entries-in-buffer/entries-written: 4/7   #P:2
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""

LINES = """\
            bash-1234    [001] .....  1234.567890: leaf <-main
            bash-1234    [000] .....  1234.567891: main <-0x7f0000001234
            bash-1234    [001] .....  1234.567892: leaf <-main
           <...>-77      [000] .....  1234.567893: leaf <-main
"""


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "trace.fentry"
    losses = [CpuLosses(0, 2, 5, 0, 0), CpuLosses(1, 2, 0, 3, 1)]
    write_trace(path, CALLS, losses=losses)
    monkeypatch.chdir(tmp_path)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(report, arguments)


def shown(*arguments: str) -> list[str]:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return [line.partition(": ")[2] for line in result.stdout.splitlines() if line[0] != "#"]


def test_the_default_input_is_printed_as_the_kernels_text(trace: Path) -> None:
    result = run()
    assert result.stdout == HEADER + LINES
    assert (
        result.stderr
        == "4 of 4 events (clock tsc), 5 dropped, 3 overrun, 1 incomplete, no damage\n"
    )
    assert result.exit_code == 0


def test_functions_can_be_chosen_and_left_out(trace: Path) -> None:
    assert shown("-F", "m*") == ["main <-0x7f0000001234"]
    assert shown("-F", "demo!*", "-N", "leaf") == ["main <-0x7f0000001234"]
    assert len(shown("-F", "leaf", "-F", "main")) == 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("-F", "libc!*"), 5, "no function matches 'libc!*'"),
        (("-F", "leeaf"), 5, "near names: leaf"),
        (("-F", "[ab"), 2, "malformed pattern"),
        (("-N", "x!"), 2, "malformed pattern"),
        (("-F", ""), 2, "an empty pattern"),
        (("--tid", "99999999999999999999"), 2, "is not in the range"),
    ],
)
def test_a_choice_of_nothing_is_refused(
    trace: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    result = run(*words)

    assert result.exit_code == code
    assert said in result.stderr


def test_threads_can_be_chosen(trace: Path) -> None:
    assert shown("--tid", "77") == ["leaf <-main"]
    assert len(shown("--tid", "77", "--tid", "1234")) == 4


def test_head_counts_the_events_that_are_shown(trace: Path) -> None:
    assert shown("--head", "1", "-F", "main") == ["main <-0x7f0000001234"]
    assert len(shown("--head", "3")) == 3
    assert shown("--head", "0") == []
    assert run("--head", "2").stderr.startswith("2 of 4 events (clock tsc), ")


def test_json_is_one_object_a_line(trace: Path) -> None:
    objects = [json.loads(line) for line in run("--json").stdout.splitlines()]
    assert len(objects) == 4
    assert objects[1] == {
        "comm": "bash",
        "tid": 1234,
        "cpu": 0,
        "time_ns": 1234567891000,
        "ip": f"0x{MAIN:016x}",
        "function": "main",
        "module": "/usr/bin/demo",
        "parent_ip": "0x00007f0000001234",
        "parent": "0x7f0000001234",
    }


def test_columns_can_be_chosen_and_ordered(trace: Path) -> None:
    assert run("--columns", "time,cpu,tid,function,parent").stdout == (
        "             TIME  CPU      TID  FUNCTION                          PARENT\n"
        "      1234.567890    1     1234  leaf                              main\n"
        "      1234.567891    0     1234  main                              0x7f0000001234\n"
        "      1234.567892    1     1234  leaf                              main\n"
        "      1234.567893    0       77  leaf                              main\n"
    )
    assert run("--columns", "parent_ip, module,ip", "--tid", "77").stdout == (
        "PARENT_IP           MODULE                    IP\n"
        "0x0000000000401146  demo                      0x0000000000401106\n"
    )
    assert run("--columns", "task,time", "--head", "1").stdout == (
        "TASK                           TIME\nbash                    1234.567890\n"
    )


def test_a_line_of_one_narrow_column_has_eight_bytes(trace: Path) -> None:
    assert run("--columns", "cpu", "-F", "main").stdout == "    CPU\n      0\n"
    assert run("--columns", "function", "-F", "main").stdout == "FUNCTION\nmain   \n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--columns", "time,cpus"), "'cpus' is no column\n  try: some of time, cpu, task, "),
        (("--columns", ""), "no column is named"),
        (("--columns", "time", "--json"), "--columns is for the text of events"),
        (("--columns", "time", "--counts"), "--columns is for the text of events"),
        (("--columns", "time", "--diff", "x"), "--columns is for the text of events"),
    ],
)
def test_columns_that_cannot_be_are_refused(trace: Path, words: tuple[str, ...], said: str) -> None:
    result = run(*words)

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_records_of_16_bytes_have_no_columns_of_parents(tmp_path: Path) -> None:
    path = str(tmp_path / "small.fentry")
    one = batch(0, 0, [Call(5_000_000_000)], record_bytes=16)
    write_trace(Path(path), [one], of=meta(record_bytes=16))

    assert run("-i", path, "--columns", "cpu,function").stdout == "   CPU  FUNCTION\n     0  leaf\n"
    refused = run("-i", path, "--columns", "function,parent")
    assert refused.exit_code == 2
    assert "this trace has no parents" in refused.stderr


def test_counts_are_a_table(trace: Path) -> None:
    assert run("--counts").stdout == (
        "       CALLS    SHARE  FUNCTION  MODULE\n"
        "           3   75.00%  leaf      demo\n"
        "           1   25.00%  main      demo\n"
    )


def test_counts_as_json_are_one_array(trace: Path) -> None:
    assert json.loads(run("--counts", "--json", "-F", "main").stdout) == [
        {"calls": 1, "share": 1.0, "function": "main", "module": "/usr/bin/demo"}
    ]


def test_counts_of_the_first_events_are_the_first_in_time(trace: Path) -> None:
    rows = json.loads(run("--counts", "--json", "--head", "2").stdout)
    assert {row["function"]: row["calls"] for row in rows} == {"leaf": 1, "main": 1}


def test_records_of_16_bytes_print_no_parent(tmp_path: Path) -> None:
    path = tmp_path / "small.fentry"
    one = batch(0, 0, [Call(5_000_000_000)], record_bytes=16)
    write_trace(path, [one], of=meta(record_bytes=16))
    line = run("-i", str(path)).stdout.splitlines()[-1]
    assert line == "            bash-1234    [000] .....     5.000000: leaf"


def test_damage_is_reported_in_two_lines_and_the_rest_is_shown(trace: Path) -> None:
    data = bytearray(trace.read_bytes())
    data[data.index(b"bash")] ^= 0xFF
    trace.write_bytes(data)
    result = run()
    what, cause, totals = result.stderr.splitlines()
    assert what == "fentry: trace.fentry is damaged: what is whole was read"
    assert cause.startswith("  cause: at byte ")
    assert cause.endswith(": the TASKS section does not match its checksum")
    assert totals.endswith("damaged in 1 place")
    assert "<...>-1234    [001] .....  1234.567890: leaf <-main\n" in result.stdout
    assert result.exit_code == 0


def test_an_unfinished_file_is_shown_and_said_to_be_so(trace: Path) -> None:
    write_trace(trace, CALLS, close=False)
    result = run()
    assert result.stdout.endswith(LINES)
    assert result.stderr.splitlines()[0] == (
        "fentry: trace.fentry is not complete: what is whole was read"
    )
    assert result.stderr.splitlines()[-1] == "4 of 4 events (clock tsc), 0 dropped, no END"
    assert result.exit_code == 0


def test_torn_records_are_counted(trace: Path) -> None:
    good = batch(0, 1024, [Call(1), Call(2)]).records
    stale = batch(0, 0, [Call(3)]).records
    write_trace(trace, [Batch(0, 1024, good[:24] + stale)])
    assert run().stderr == "1 of 2 events (clock tsc), 0 dropped, 1 torn, no damage\n"


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"hello", "it is not a fentry trace, or nothing of it is whole"), (None, "no such file")],
)
def test_nothing_to_read_is_exit_status_10(
    tmp_path: Path, content: bytes | None, cause: str
) -> None:
    path = tmp_path / "x.fentry"
    if content is not None:
        path.write_bytes(content)
    result = run("-i", str(path))
    assert result.exit_code == 10
    assert result.stdout == ""
    what, second = result.stderr.splitlines()
    assert what == f"fentry: cannot read {path}"
    assert f"cause: {cause}" in second


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from fentry.cli.report import report; report()", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_head_of_a_long_report_ends_quietly_with_141(tmp_path: Path) -> None:
    path = tmp_path / "long.fentry"
    calls = [Call(1_000_000_000 + time) for time in range(60_000)]
    write_trace(path, [batch(0, 0, calls, capacity=1 << 16)], of=meta(capacity=1 << 16))
    with subprocess.Popen(
        command("-i", str(path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"# tracer: function\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_a_full_disk_for_the_text_is_an_error_in_two_lines(trace: Path) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            command("-i", str(trace)), stdout=full, stderr=subprocess.PIPE, env=environment()
        )
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [
        "fentry: cannot write the report",
        "  cause: no space left on device",
    ]


def test_a_trace_can_come_through_a_pipe(trace: Path) -> None:
    with (
        trace.open("rb") as source,
        subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE) as cat,
    ):
        result = subprocess.run(
            command("-i", "-", "--counts", "--json"),
            stdin=cat.stdout,
            capture_output=True,
            env=environment(),
        )
    assert [row["calls"] for row in json.loads(result.stdout)] == [3, 1]


# Without times


def test_events_without_times_come_cpu_by_cpu_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Positions begin at the capacity, 1024; time_ns of a Call is half the ticks of its record.
    calls = [
        batch(1, 1024, [Call(512), Call(512)]),
        batch(0, 1024, [Call(512, key=1)]),
        batch(2, 1024, [Call(512)]),
    ]
    losses = [CpuLosses(0, 1, 0, 0, 0), CpuLosses(1, 2, 3, 0, 0), CpuLosses(2, 1, 0, 0, 0)]
    path = tmp_path / "trace.fentry"
    counted = dataclasses.replace(meta(), clock="percpu-counter", stray_cpu=2)
    write_trace(path, calls, of=counted, losses=losses)
    monkeypatch.chdir(tmp_path)

    result = run()
    rows = [line.split("[")[1].split() for line in result.stdout.splitlines() if line[0] != "#"]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("000]", "0:", "main"), ("001]", "0:", "leaf"), ("001]", "0:", "leaf"),
        ("002]", "0:", "leaf"),
    ]  # fmt: skip
    assert "# clock: percpu-counter (" in result.stdout
    assert run("--columns", "time,cpu,function", "--head", "2").stdout == (
        "            COUNT  CPU  FUNCTION\n"
        "                0    0  main\n"
        "                0    1  leaf\n"
    )  # fmt: skip
    assert result.stderr == (
        "4 of 4 events (clock percpu-counter), 3 dropped, no damage\n"
        "records are counted on each CPU: order within each CPU only, no times\n"
        "under CPU 2 stand calls whose CPU is not known, in their own order\n"
    )
    with TraceReader(path) as trace, pytest.raises(BadInput, match="has no times"):
        next(trace.batches(start_ns=1))


def test_calls_whose_cpu_is_not_known_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [CpuLosses(0, 1, 0, 0, 0), CpuLosses(1, 1, 0, 0, 0)]
    path = tmp_path / "trace.fentry"
    calls = [batch(0, 1024, [Call(512, key=1)]), batch(1, 1024, [Call(600)])]
    write_trace(path, calls, of=dataclasses.replace(meta(), stray_cpu=1), losses=losses)
    monkeypatch.chdir(tmp_path)

    assert run().stderr == (
        "2 of 2 events (clock tsc), 0 dropped, no damage\n"
        "under CPU 1 stand calls whose CPU is not known\n"
    )
