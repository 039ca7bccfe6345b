"""Text of events against lines written by hand from the kernel's formats.

`%16s-%-7d [%03d] ` flags ` %5lu.%06lu: ` body: kernel/trace/trace_output.c,
trace_print_context; the header is print_func_help_header_irq in kernel/trace/trace.c.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from fentry.events.columns import Events
from fentry.formats.symbol_names import SymbolNames
from fentry.formats.task_names import TaskNames
from fentry.formats.text import FunctionText, JsonLines, function_header
from fentry.formats.tracefile import Task

Row = tuple[int, int, int, int, int]  # time_ns, cpu, tid, ip, parent_ip

TASKS = TaskNames([Task(1234, b"bash", 0), Task(4194303, b"fifteen-letters", 0)])


def symbols() -> SymbolNames:
    return SymbolNames(
        np.array([0x1000, 0x2000, 0x3000], np.uint64),
        np.array([16, 16, 16], np.uint64),
        [b"leaf", b"main", b"std::vector<int, std::allocator<int> >::push_back(int const&)"],
        [b"/usr/bin/demo"] * 3,
    )


def events(*rows: Row, parents: bool = True) -> Events:
    time_ns, cpu, tid, ip, parent_ip = (list(column) for column in zip(*rows, strict=True))
    return Events(
        time_ns=np.array(time_ns, np.int64),
        cpu=np.array(cpu, np.uint16),
        tid=np.array(tid, np.uint32),
        ip=np.array(ip, np.uint64),
        parent_ip=np.array(parent_ip, np.uint64) if parents else None,
        key=np.zeros(len(rows), np.uint32),
    )


def lines(*rows: Row, parents: bool = True, print_parent: bool = True) -> list[str]:
    text = FunctionText(symbols(), TASKS, print_parent=print_parent)
    return bytes(text.lines(events(*rows, parents=parents))).decode().splitlines()


def test_the_header_is_the_kernels() -> None:
    assert function_header(entries=5, written=7, nr_cpus=2).decode() == (
        "# tracer: function\n"
        "#\n"
        "# entries-in-buffer/entries-written: 5/7   #P:2\n"
        "#\n"
        "#                                _-----=> irqs-off/BH-disabled\n"
        "#                               / _----=> need-resched\n"
        "#                              | / _---=> hardirq/softirq\n"
        "#                              || / _--=> preempt-depth\n"
        "#                              ||| / _-=> migrate-disable\n"
        "#                              |||| /     delay\n"
        "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n"
        "#              | |         |   |||||     |         |\n"
    )


def test_the_header_names_a_clock_that_is_no_time() -> None:
    header = function_header(entries=5, written=7, nr_cpus=2, clock="percpu-counter")

    assert header.decode().splitlines()[2:5] == [
        "# entries-in-buffer/entries-written: 5/7   #P:2",
        "# clock: percpu-counter (the count of each CPU, one CPU after the other: no order across "
        "CPUs)",
        "#",
    ]


def test_counts_stand_where_the_kernel_has_those_of_its_counter_clock() -> None:
    text = FunctionText(symbols(), TASKS, has_time=False)
    rows = [(count, 1, 1234, 0x1000, 0x2005) for count in (0, 7, 999, 1000, 12_345_678_901_234)]

    assert bytes(text.lines(events(*rows))).decode().splitlines() == [
        "            bash-1234    [001] .....            0: leaf <-main",
        "            bash-1234    [001] .....            7: leaf <-main",
        "            bash-1234    [001] .....          999: leaf <-main",
        "            bash-1234    [001] .....         1000: leaf <-main",
        "            bash-1234    [001] ..... 12345678901234: leaf <-main",
    ]


def test_json_has_a_count_where_there_is_no_time() -> None:
    text = JsonLines(symbols(), TASKS, has_time=False)
    line = bytes(text.lines(events((41, 1, 1234, 0x1000, 0x2005)))).decode()

    assert line.startswith('{"comm":"bash","tid":1234,"cpu":1,"count":41,"ip":')
    assert "time_ns" not in line


def test_a_call_is_printed_as_the_kernels_function_tracer_does() -> None:
    assert lines((1234_567_890_000, 1, 1234, 0x1000, 0x2005)) == [
        "            bash-1234    [001] .....  1234.567890: leaf <-main"
    ]


def test_lines_of_all_widths_follow_one_another() -> None:
    assert lines(
        (5_000_001_000, 0, 1234, 0x1000, 0x2005),
        (12345_000_000_000, 12, 99, 0x3000, 0x1004),
        (1234567_999_999_000, 127, 4194303, 0x2000, 0x3001),
        (12345678_000_000_000, 1023, 1234, 0x1000, 0x2001),
    ) == [
        "            bash-1234    [000] .....     5.000001: leaf <-main",
        "           <...>-99      [012] ..... 12345.000000: "
        "std::vector<int, std::allocator<int> >::push_back(int const&) <-leaf",
        " fifteen-letters-4194303 [127] ..... 1234567.999999: "
        "main <-std::vector<int, std::allocator<int> >::push_back(int const&)",
        "            bash-1234    [1023] ..... 12345678.000000: leaf <-main",
    ]


@pytest.mark.parametrize(
    ("time_ns", "printed"),
    [
        (1_000_000_499, "    1.000000:"),
        (1_000_000_500, "    1.000001:"),
        (1_999_999_500, "    2.000000:"),
        (0, "    0.000000:"),
    ],
)
def test_times_are_rounded_to_the_nearest_microsecond(time_ns: int, printed: str) -> None:
    assert f" ..... {printed} " in lines((time_ns, 0, 1234, 0x1000, 0x2005))[0]


def test_records_without_parent_end_after_the_function() -> None:
    expected = ["            bash-1234    [001] .....  1234.567890: leaf"]
    assert lines((1234_567_890_000, 1, 1234, 0x1000, 0), parents=False) == expected
    assert lines((1234_567_890_000, 1, 1234, 0x1000, 0x2005), print_parent=False) == expected


def test_addresses_without_symbol_are_printed_in_hex() -> None:
    assert lines((1_000_000_000, 0, 1234, 0x7F00DEADBEEF, 0x42)) == [
        "            bash-1234    [000] .....     1.000000: 0x7f00deadbeef <-0x00000042"
    ]


def test_names_met_later_are_printed_too() -> None:
    text = FunctionText(symbols(), TASKS)
    text.lines(events((1, 0, 1, 0x1000, 0x2005)))
    later = bytes(text.lines(events((1_000_000_000, 0, 1234, 0x9000, 0x9999))))
    assert later == b"            bash-1234    [000] .....     1.000000: 0x00009000 <-0x00009999\n"


def test_widely_spread_times_are_printed_right() -> None:
    rows = [(second * 1_000_000_000, 0, 1234, 0x1000, 0x2005) for second in (1, 9_000_000, 500)]
    assert [line[36:].split(":")[0] for line in lines(*rows)] == [
        "     1.000000",
        " 9000000.000000",
        "   500.000000",
    ]


def test_more_addresses_than_are_remembered_are_all_printed() -> None:
    text = FunctionText(symbols(), TASKS)
    for start in range(0, 140_000, 20_000):
        rows = [(0, 0, 1234, 0x10_0000 + n, 0x2005) for n in range(start, start + 20_000)]
        printed = bytes(text.lines(events(*rows))).decode().splitlines()
        assert printed[0].endswith(f": 0x{0x10_0000 + start:08x} <-main")
        assert printed[-1].endswith(f": 0x{0x10_0000 + start + 19_999:08x} <-main")


def test_json_lines_hold_the_same_and_parse() -> None:
    rows = events(
        (1234_567_890_123, 1, 1234, 0x1000, 0x2005),
        (1235_000_000_001, 0, 77, 0x7F00DEADBEEF, 0x3003),
    )
    printed = bytes(JsonLines(symbols(), TASKS).lines(rows)).decode().splitlines()
    assert [json.loads(line) for line in printed] == [
        {
            "comm": "bash",
            "tid": 1234,
            "cpu": 1,
            "time_ns": 1234567890123,
            "ip": "0x0000000000001000",
            "function": "leaf",
            "module": "/usr/bin/demo",
            "parent_ip": "0x0000000000002005",
            "parent": "main",
        },
        {
            "comm": "<...>",
            "tid": 77,
            "cpu": 0,
            "time_ns": 1235000000001,
            "ip": "0x00007f00deadbeef",
            "function": "0x7f00deadbeef",
            "module": "",
            "parent_ip": "0x0000000000003003",
            "parent": "std::vector<int, std::allocator<int> >::push_back(int const&)",
        },
    ]


def test_json_of_times_below_a_second_has_no_leading_zeros() -> None:
    rows = events((7, 0, 1234, 0x1000, 0), (5_000_000_001, 0, 1234, 0x1000, 0), parents=False)
    printed = bytes(JsonLines(symbols(), TASKS).lines(rows)).decode().splitlines()
    assert [json.loads(line)["time_ns"] for line in printed] == [7, 5000000001]


def test_json_escapes_what_names_may_hold() -> None:
    tasks = TaskNames([Task(1, b'q"\\\xff', 0)])
    rows = events((5_000_000_000, 0, 1, 0x1000, 0), parents=False)
    printed = bytes(JsonLines(symbols(), tasks).lines(rows)).decode()
    assert json.loads(printed)["comm"] == 'q"\\\ufffd'
