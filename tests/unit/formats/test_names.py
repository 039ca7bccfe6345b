"""Names of addresses and threads."""

from __future__ import annotations

import numpy as np
import pytest

from fentry.events.columns import Events
from fentry.formats.id_cache import IdCache
from fentry.formats.symbol_names import SymbolNames, printable
from fentry.formats.task_names import TaskNames
from fentry.formats.tracefile import Task


def u64(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, np.uint64)


@pytest.fixture
def symbols() -> SymbolNames:
    return SymbolNames(
        u64(0x2000, 0x1000, 0x3000),
        u64(0x10, 0x1000, 0),
        [b"short", b"long", b"sizeless"],
        [b"/lib/libm.so.6", b"/lib/libc.so.6", b"/opt/libc-2.31.so"],
    )


def names(symbols: SymbolNames, ids: object) -> list[bytes]:
    return [symbols.names[place] for place in np.asarray(ids).tolist()]


def test_an_address_inside_a_symbol_has_its_name(symbols: SymbolNames) -> None:
    ids = symbols.of_ips(u64(0x1000, 0x1FFF, 0x2000, 0x200F, 0x3000))
    assert names(symbols, ids) == [b"long", b"long", b"short", b"short", b"sizeless"]


def test_an_address_in_no_symbol_is_printed_as_the_kernel_does(symbols: SymbolNames) -> None:
    ids = symbols.of_ips(u64(0xFFF, 0x2010, 0x3001, 0, 0x7F0012345678))
    assert names(symbols, ids) == [
        b"0x00000fff",
        b"0x00002010",
        b"0x00003001",
        b"0",
        b"0x7f0012345678",
    ]


def test_a_return_address_at_the_end_belongs_to_the_function_that_called(
    symbols: SymbolNames,
) -> None:
    # 0x2000 is the first byte of `short`, but the call before it is the last of `long`
    assert names(symbols, symbols.of_returns(u64(0x2000, 0x2010, 0x2001))) == [
        b"long",
        b"short",
        b"short",
    ]


def test_a_return_address_that_no_call_made_is_named_by_itself(symbols: SymbolNames) -> None:
    assert names(symbols, symbols.of_returns(u64(0x3000))) == [b"sizeless"]


def test_of_two_symbols_at_one_address_the_last_holds() -> None:
    symbols = SymbolNames(u64(1, 1), u64(4, 4), [b"old", b"new"])
    assert names(symbols, symbols.of_ips(u64(1))) == [b"new"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", [True, True, True]),
        ("s*", [False, True, True]),
        ("libc!*", [True, False, True]),
        ("libm.so.6!short", [False, True, False]),
        ("/lib/*!*", [True, True, False]),
        ("libm!long", [False, False, False]),
    ],
)
def test_globs_match_names_and_modules(
    symbols: SymbolNames, pattern: str, expected: list[bool]
) -> None:
    assert symbols.matching([pattern]).tolist() == expected


def test_control_bytes_in_names_become_question_marks() -> None:
    assert printable(b"a\x1b[2J\nb\x7f\xc3\xa9") == b"a?[2J?b?\xc3\xa9"


def test_ids_stay_right_when_many_values_share_slots() -> None:
    cache = IdCache(lambda values: (values * np.uint64(3)).astype(np.intp))
    values = np.arange(200_000, dtype=np.uint64)
    for _ in range(2):
        assert (cache.of(values) == np.arange(200_000) * 3).all()


def test_the_values_of_empty_slots_are_searched_for_like_others() -> None:
    cache = IdCache(lambda values: values.astype(np.intp) + 5)
    assert cache.of(u64(0, 1)).tolist() == [5, 6]


def calls(*rows: tuple[int, int]) -> Events:
    n = len(rows)
    return Events(
        time_ns=np.array([time for time, _ in rows], np.int64),
        cpu=np.full(n, 3, np.uint16),
        tid=np.array([tid for _, tid in rows], np.uint32),
        ip=np.zeros(n, np.uint64),
        parent_ip=None,
        key=np.zeros(n, np.uint32),
    )


def unpacked(tasks: TaskNames, events: Events) -> list[tuple[bytes, int, int]]:
    return [tasks.unpack(key) for key in tasks.keys(events).tolist()]


def test_a_thread_has_the_name_of_its_time() -> None:
    tasks = TaskNames([Task(7, b"python3", 100), Task(7, b"worker", 200), Task(8, b"io", 100)])
    assert unpacked(tasks, calls((50, 7), (199, 7), (200, 7), (300, 8))) == [
        (b"python3", 7, 3),
        (b"python3", 7, 3),
        (b"worker", 7, 3),
        (b"io", 8, 3),
    ]


def test_a_thread_that_was_never_named_is_shown_as_the_kernel_does() -> None:
    assert unpacked(TaskNames([]), calls((1, 4194303))) == [(b"<...>", 4194303, 3)]
