"""Traces as Parquet, read by DuckDB."""

from __future__ import annotations

import json
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from click.testing import CliRunner
from tests.support.duckdb import query
from tests.support.exported import export, write_cut_trace, write_long_trace, write_lossy_trace
from tests.support.ring_batches import Call, batch, meta, write_trace

from fentry.cli.__main__ import words


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Calls of two threads on two CPUs, in a file that is still to be written."""
    return tmp_path / "t"


CALLS = [
    batch(1, 0, [Call(1234_567_890_000), Call(1234_567_892_001)]),
    batch(0, 0, [Call(1234_567_891_000, key=1, parent_ip=0x7F0000001234, tid=77)]),
]


def test_every_call_is_a_row_in_the_order_of_time(trace: Path) -> None:
    write_trace(trace, CALLS)
    out = export("parquet", trace)
    assert query("select * from calls", out) == [
        (1234567890000, 1, 1234, "bash", 0x401106, "leaf", "/usr/bin/demo", 0x401146, "main"),
        (1234567891000, 0, 77, "<...>", 0x401136, "main", "/usr/bin/demo", 0x7F0000001234,
         "0x7f0000001234"),
        (1234567892001, 1, 1234, "bash", 0x401106, "leaf", "/usr/bin/demo", 0x401146, "main"),
    ]  # fmt: skip
    assert query("select function, parent, count(*) from calls group by all order by 1", out) == [
        ("leaf", "main", 2),
        ("main", "0x7f0000001234", 1),
    ]


def test_columns_and_their_types(trace: Path) -> None:
    write_trace(trace, CALLS)
    found = query("select column_name, column_type from (describe calls)", export("parquet", trace))
    assert found == [
        ("time_ns", "BIGINT"), ("cpu", "USMALLINT"), ("tid", "UINTEGER"), ("comm", "VARCHAR"),
        ("ip", "UBIGINT"), ("function", "VARCHAR"), ("module", "VARCHAR"),
        ("parent_ip", "UBIGINT"), ("parent", "VARCHAR"),
    ]  # fmt: skip


def test_the_metadata_says_what_was_traced_and_lost(trace: Path) -> None:
    write_lossy_trace(trace)
    ((text,),) = query(
        "select value from parquet_kv_metadata(FILE) where key = 'fentry'", export("parquet", trace)
    )
    found = json.loads(text)
    assert (found["meta"]["exe"], found["meta"]["pid"]) == ("/usr/bin/demo", 1234)
    assert found["meta"]["command_line"] == ["fentry", "record", "-p", "1234"]
    assert found["losses"] == [
        {"cpu": 0, "recorded": 10, "dropped_events": 0, "overrun": 5, "incomplete": 0},
        {"cpu": 3, "recorded": 10, "dropped_events": 4, "overrun": 0, "incomplete": 1},
    ]
    assert found["clock_pairs"] == [[0, 1_600_000_000_000_000_000]]


def test_names_of_odd_bytes(trace: Path) -> None:
    write_lossy_trace(trace)
    out = export("parquet", trace)
    assert query("select distinct function, module from calls order by 1", out) == [
        ("l\ufffd? 'af", "/opt/d\ufffdmo"),
        ("ma\u00efn", ""),
    ]
    assert query("select comm, count(*) from calls group by comm order by comm", out) == [
        ("ba\ufffdsh", 4),
        ("kid", 1),
    ]


def test_records_without_a_parent_have_no_such_columns(trace: Path) -> None:
    records = batch(0, 0, [Call(1000), Call(2000, key=1)], record_bytes=16)
    write_trace(trace, [records], of=meta(record_bytes=16))
    assert query("select * exclude (module, ip) from calls", export("parquet", trace)) == [
        (1000, 0, 1234, "bash", "leaf"),
        (2000, 0, 1234, "bash", "main"),
    ]


def test_without_times_calls_are_counted_on_each_cpu(trace: Path) -> None:
    # such a record's position begins at the capacity, and the tsc of tests has 2 ticks a ns
    counted = [Call(512), Call(513), Call(514, key=1)]
    batches = [batch(0, 0, counted[::2]), batch(1, 0, counted[:2])]
    write_trace(trace, batches, of=replace(meta(), clock="percpu-counter"))
    found = query("select cpu, count, function from calls", export("parquet", trace))
    assert found == [(0, 0, "leaf"), (0, 4, "main"), (1, 0, "leaf"), (1, 2, "leaf")]


def test_an_empty_trace_is_a_table_without_rows(trace: Path) -> None:
    write_trace(trace, [])
    out = export("parquet", trace)
    assert query("select count(*) from calls", out) == [(0,)]
    assert len(query("describe calls", out)) == 9


def test_all_whole_records_of_a_damaged_trace(trace: Path) -> None:
    write_cut_trace(trace)
    out = export("parquet", trace)
    assert query("select cpu, count(*) from calls group by cpu order by cpu", out) == [
        (0, 8),
        (1, 4),
    ]


def test_a_long_trace_takes_no_more_memory_and_is_compact(trace: Path) -> None:
    write_long_trace(trace, 1_000_000)
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    out = export("parquet", trace)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000
    assert pyarrow.total_allocated_bytes() == before
    assert query(
        """
        select count(*), count(distinct function), count(distinct tid), min(time_ns), max(time_ns)
        from calls
        """,
        out,
    ) == [(1_000_000, 1000, 8, 1_000_000_000_000, 1_000_049_999_901)]
    assert query("select function, count(*) from calls group by all order by 1 limit 2", out) == [
        ("0x00400000", 1000),
        ("0x00400280", 1000),
    ]
    found = query(
        """
        select path_in_schema, any_value(compression), bool_and(encodings like '%DELTA_BINARY%'),
            bool_and(encodings like '%DICTIONARY%'), max(row_group_num_rows)
        from parquet_metadata(FILE) group by path_in_schema order by path_in_schema
        """,
        out,
    )
    texts = [(name, "ZSTD", False, True, 131_072) for name in (
        "comm", "cpu", "function", "ip", "module", "parent", "parent_ip", "tid")]  # fmt: skip
    assert found == sorted([*texts, ("time_ns", "ZSTD", True, False, 131_072)])


def test_without_pyarrow_the_remedy_is_named_and_nothing_written(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_trace(trace, CALLS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = CliRunner().invoke(words, ["export", "parquet", "-i", str(trace)])
    assert done.exit_code == 1
    assert str(done.exception) == (
        "cannot write Parquet\n"
        "  cause: the package pyarrow is not installed    try: pip install fentry[analysis]"
    )
    assert [path.name for path in trace.parent.iterdir()] == ["t"]
