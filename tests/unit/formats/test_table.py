"""Table of counts per function."""

from __future__ import annotations

import json

import numpy as np

from fentry.events.columns import Events
from fentry.formats.symbol_names import SymbolNames
from fentry.formats.table import (
    FunctionCount,
    FunctionCounts,
    count_json,
    count_table,
    rate_json,
)

ROWS = [
    FunctionCount(3, 0.75, "leaf", "/usr/bin/demo"),
    FunctionCount(1, 0.25, "0x00000042", ""),
]


def events(ips: list[int]) -> Events:
    n = len(ips)
    return Events(
        time_ns=np.zeros(n, np.int64),
        cpu=np.zeros(n, np.uint16),
        tid=np.zeros(n, np.uint32),
        ip=np.array(ips, np.uint64),
        parent_ip=None,
        key=np.zeros(n, np.uint32),
    )


def test_calls_add_up_over_batches_and_unknown_functions() -> None:
    symbols = SymbolNames(
        np.array([0x10], np.uint64), np.array([4], np.uint64), [b"leaf"], [b"/usr/bin/demo"]
    )
    counts = FunctionCounts(symbols)
    counts.add(events([0x10, 0x10]))
    counts.add(events([0x42, 0x10]))
    assert counts.rows() == ROWS


def test_the_table_is_aligned_and_names_modules_by_file() -> None:
    assert count_table(ROWS, width=80) == (
        "       CALLS    SHARE  FUNCTION    MODULE\n"
        "           3   75.00%  leaf        demo\n"
        "           1   25.00%  0x00000042  -\n"
    )


def test_wide_names_are_clipped_in_the_middle_on_narrow_terminals() -> None:
    row = FunctionCount(1, 1.0, "a" * 40 + "z" * 40, "/lib/" + "m" * 60)
    lines = count_table([row], width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert "aaa~zzz" in lines[1]
    assert "mmm~mmm" in lines[1]


def test_an_empty_table_is_its_head_line() -> None:
    assert count_table([], width=80) == "       CALLS    SHARE  FUNCTION  MODULE\n"


def test_counts_as_json_have_whole_paths() -> None:
    assert json.loads(count_json(ROWS)) == [
        {"calls": 3, "share": 0.75, "function": "leaf", "module": "/usr/bin/demo"},
        {"calls": 1, "share": 0.25, "function": "0x00000042", "module": ""},
    ]


def test_calls_of_an_interval_have_a_rate() -> None:
    assert count_table(ROWS, width=80, seconds=0.5) == (
        "       CALLS     CALLS/S    SHARE  FUNCTION    MODULE\n"
        "           3           6   75.00%  leaf        demo\n"
        "           1           2   25.00%  0x00000042  -\n"
    )
    row = FunctionCount(1, 1.0, "a" * 100, "/lib/" + "m" * 60)
    assert max(map(len, count_table([row], width=70, seconds=1.0).splitlines())) <= 70


def test_an_interval_is_one_line_of_json() -> None:
    text = rate_json(ROWS[:1], 0.75)
    assert text.endswith("}\n") and text.count("\n") == 1
    assert json.loads(text) == {
        "seconds": 0.75,
        "calls": 3,
        "functions": [
            {"calls": 3, "share": 0.75, "function": "leaf", "module": "/usr/bin/demo",
             "per_second": 4.0},
        ],
    }  # fmt: skip
