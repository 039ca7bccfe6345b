"""Table: columns, events, choosing, and what other tools get."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow
import pytest
from tests.support.tables import EVIL, LEAF, MAIN, MALLOC, RTLD_MALLOC, Call, table_of

from fentry.errors import BadInput, FentryError
from fentry.tracing.table import Event, Lost

CALLS = (
    Call(100, LEAF),
    Call(200, MALLOC, cpu=1, tid=8, parent_ip=LEAF.ip + 5),
    Call(1500, LEAF),
    Call(1600, RTLD_MALLOC, parent_ip=0x123456),
)


def test_columns_are_numbers_and_names() -> None:
    table = table_of(*CALLS)
    assert table.time_ns.dtype == np.int64 and table.time_ns.tolist() == [100, 200, 1500, 1600]
    assert table.cpu.dtype == np.uint16 and table.cpu.tolist() == [0, 1, 0, 0]
    assert table.tid.dtype == np.uint32 and table.tid.tolist() == [7, 8, 7, 7]
    assert table.ip.dtype == np.uint64 and table.ip.tolist() == [0x2000, 0x7000, 0x2000, 0x9000]
    assert table.function.tolist() == ["leaf", "malloc", "leaf", "malloc"]
    assert table.module.tolist() == ["demo", "libc.so.6", "demo", "ld-linux-x86-64.so.2"]
    assert table.parent.tolist() == ["main", "leaf", "main", "0x123456"]
    assert table.comm.tolist() == ["bash", "<...>", "sh", "sh"]
    assert table.function_id.dtype == np.int32
    assert [table.functions[i].name for i in table.function_id.tolist()] == table.function.tolist()
    assert table["function"].tolist() == table.function.tolist()


def test_a_table_has_the_functions_that_it_needs_only() -> None:
    table = table_of(Call(1, MALLOC))
    assert set(table.functions) == {MALLOC, MAIN}


def test_a_return_address_at_the_end_of_a_function_is_of_the_call_before_it() -> None:
    behind = LEAF.ip + 0x100  # the first byte after it: its last instruction is a call
    assert table_of(Call(1, MALLOC, parent_ip=behind)).parent.tolist() == ["leaf"]


def test_a_return_address_that_no_call_made_is_looked_up_itself() -> None:
    assert table_of(Call(1, MALLOC, parent_ip=LEAF.ip)).parent.tolist() == ["leaf"]


def test_a_table_is_a_sequence_of_events() -> None:
    table = table_of(*CALLS)
    second = Event(200, 1, 8, "<...>", "malloc", "libc.so.6", 0x7000, "leaf", 0x2005)
    assert len(table) == 4
    assert table[1] == list(table)[1] == second
    assert table[-1].time_ns == 1600
    assert [event.function for event in table[1:3]] == ["malloc", "leaf"]
    assert table[table.tid == 8].time_ns.tolist() == [200]
    assert table[np.array([3, 0])].time_ns.tolist() == [1600, 100]
    with pytest.raises(IndexError):
        table[4]
    with pytest.raises(KeyError):
        table["no such column"]


def test_without_parents_the_rest_is_the_same() -> None:
    table = table_of(*CALLS, parents=False)
    assert table.parent_ip is None and table.parent_id is None
    assert table.parent.tolist() == [""] * 4
    assert table[0] == Event(100, 0, 7, "bash", "leaf", "demo", 0x2000, "", 0)
    assert "parent" not in table.to_arrow().column_names
    assert "parent" not in table.to_pandas().columns


@pytest.mark.parametrize(
    ("words", "options", "times"),
    [
        ((), {}, [100, 200, 1500, 1600]),
        (("malloc",), {}, [200, 1600]),
        (("libc!mal*",), {}, [200]),
        (("libc.so!*", "ld-linux*!*"), {}, [200, 1600]),
        (("*", "!leaf"), {}, [200, 1600]),
        (("re:^l",), {}, [100, 1500]),
        (("0x9000",), {}, [1600]),
        (("nothing",), {}, []),
        (("*",), {"exclude": "malloc"}, [100, 1500]),
        ((), {"exclude": ["leaf", "libc!*"]}, [1600]),
        ((), {"tid": 8}, [200]),
        ((), {"comm": "s*"}, [1500, 1600]),
        ((), {"since_ns": 200, "until_ns": 1600}, [200, 1500]),
    ],
)
def test_filter(words: tuple[str, ...], options: dict[str, object], times: list[int]) -> None:
    chosen = table_of(*CALLS).filter(*words, **options)  # type: ignore[arg-type]
    assert chosen.time_ns.tolist() == times


def test_filter_refuses_words_that_are_none_and_times_that_are_none() -> None:
    with pytest.raises(BadInput, match="malformed"):
        table_of(*CALLS).filter("re:(")
    with pytest.raises(BadInput, match="no times"):
        table_of(*CALLS, has_time=False).filter(since_ns=1)


def test_counts_of_a_table_tell_functions_of_one_name_apart() -> None:
    counts = table_of(*CALLS).counts()
    assert dict(counts) == {"leaf": 2, "libc.so.6!malloc": 1, "ld-linux-x86-64.so.2!malloc": 1}
    assert counts["malloc"] == 2


def test_arrow_has_the_same_columns() -> None:
    arrow = table_of(*CALLS, lost=Lost(dropped=3)).to_arrow()
    names = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    assert [(field.name, field.type) for field in arrow.schema] == [
        ("time_ns", pyarrow.int64()),
        ("cpu", pyarrow.uint16()),
        ("tid", pyarrow.uint32()),
        ("comm", names),
        ("function", names),
        ("module", names),
        ("ip", pyarrow.uint64()),
        ("parent", names),
        ("parent_ip", pyarrow.uint64()),
    ]
    assert arrow.column("function").to_pylist() == ["leaf", "malloc", "leaf", "malloc"]
    assert arrow.column("parent").to_pylist() == ["main", "leaf", "main", "0x123456"]
    assert arrow.column("comm").to_pylist() == ["bash", "<...>", "sh", "sh"]
    assert arrow.schema.metadata[b"dropped"] == b"3"
    arrow.validate(full=True)


def test_pandas_has_the_same_columns() -> None:
    frame = table_of(*CALLS, lost=Lost(overrun=2)).to_pandas()
    assert frame["time_ns"].tolist() == [100, 200, 1500, 1600]
    assert frame["function"].tolist() == ["leaf", "malloc", "leaf", "malloc"]
    assert str(frame["function"].dtype) == "category"
    assert frame.groupby("function", observed=True).size().to_dict() == {"leaf": 2, "malloc": 2}
    assert frame.attrs["overrun"] == 2


@pytest.mark.parametrize("parents", [True, False])
def test_an_empty_table_is_one_for_everybody(parents: bool) -> None:
    table = table_of(parents=parents)
    assert len(table) == 0 and list(table) == []
    assert table.to_arrow().num_rows == 0 and len(table.to_pandas()) == 0
    assert table.counts() == {}
    assert repr(table) == "<Table: 0 events, 0 lost>"
    assert "<table>" in table._repr_html_()


@pytest.mark.parametrize("name", ["pyarrow", "pandas"])
def test_what_is_not_installed_is_told_with_the_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # import then raises ImportError
    table = table_of(*CALLS)
    with pytest.raises(FentryError, match=rf"(?s)this needs {name}.*pip install 'fentry\[ana"):
        table.to_arrow() if name == "pyarrow" else table.to_pandas()


def test_what_is_shown_says_how_many_and_what_was_lost() -> None:
    table = table_of(*CALLS, lost=Lost(1, 2, 3))
    assert repr(table) == "<Table: 4 events, 6 lost, 3 functions, 2 threads, 0.000002 s>"
    assert str(table).splitlines()[:3] == [
        "4 events, 6 lost, 3 functions, 2 threads, 0.000002 s",
        "           TIME CPU     TID COMM            FUNCTION",
        "       0.000000   0       7 bash            leaf <-main",
    ]


def test_of_a_long_table_both_ends_are_shown() -> None:
    table = table_of(*(Call(number, LEAF) for number in range(100)))
    assert len(str(table).splitlines()) == 2 + 5 + 1 + 5
    assert table._repr_html_().count("<tr>") == 1 + 5 + 1 + 5


def test_names_that_a_target_chose_are_text_in_html() -> None:
    shown = table_of(Call(1, EVIL))._repr_html_()
    assert "<script>" not in shown and "<b>" not in shown
    assert "&lt;script&gt;&amp;&quot;&#x27;" in shown
    shown = table_of(Call(1, EVIL)).counts()._repr_html_()
    assert "<script>" not in shown and "&lt;b&gt;.so" in shown


def test_lost_is_true_when_anything_was_lost() -> None:
    assert not Lost()
    assert Lost(incomplete=1)
    assert Lost(1, 2, 3).total == 6
    assert Lost(5, 2, 3).since(Lost(1, 2, 0)) == Lost(4, 0, 3)
    assert Lost(1, 2, 3).plus(Lost(1, 0, 0)) == Lost(2, 2, 3)
