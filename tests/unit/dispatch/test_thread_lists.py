"""From the lists of a filter to what its table says, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fentry.dispatch.threads import Lists, ThreadFilter, check, lists_of, restored, stored
from fentry.errors import BadInput

EVERY = frozenset(range(1, 8))
SOME = st.frozensets(st.sampled_from(sorted(EVERY)))
FILTERS = st.builds(
    ThreadFilter, SOME, SOME, st.sampled_from([(), ("w*",), ("a b", "c'*")]), st.booleans()
)


def seen(wanted: ThreadFilter, living: frozenset[int], named: frozenset[int]) -> set[int]:
    """Threads that are seen of those living when the filter is set."""
    found = stored(wanted, lists_of(wanted, living, named))
    return {tid for tid in living if found.sees(tid)}


@given(FILTERS, SOME)
def test_the_kernel_rule_holds_for_the_threads_that_exist(
    wanted: ThreadFilter, named: frozenset[int]
) -> None:
    """trace_ignore_this_task (kernel/trace/trace_pid.c), with the names as more tids."""
    named = named if wanted.names else frozenset()
    listed = wanted.tids | named if wanted.only else EVERY

    assert seen(wanted, EVERY, named) == listed - wanted.notrace_tids


@given(FILTERS)
def test_a_new_thread_is_seen_unless_there_is_a_list_that_does_not_follow(
    wanted: ThreadFilter,
) -> None:
    found = stored(wanted, lists_of(wanted, EVERY, frozenset()))

    assert found.sees(99) is (wanted.follow or not wanted.only)


@given(FILTERS, SOME)
def test_a_tid_whose_thread_has_ended_is_any_other_tid(
    wanted: ThreadFilter, ended: frozenset[int]
) -> None:
    lists = lists_of(wanted, EVERY, frozenset()).without(ended, frozenset())
    found = stored(wanted, lists)

    assert {found.sees(tid) for tid in ended} <= {found.sees(99)}


@given(FILTERS, SOME, st.integers(0, 1 << 60))
def test_an_adopted_table_says_the_same_filter(
    wanted: ThreadFilter, ended: frozenset[int], start_time: int
) -> None:
    before = lists_of(wanted, EVERY, frozenset()).without(ended, frozenset())
    again, lists = restored(stored(wanted, before, start_time))

    assert again == wanted
    assert stored(again, lists) == stored(wanted, before)


def test_names_that_the_target_has_damaged_are_no_names() -> None:
    from dataclasses import replace

    damaged = replace(stored(ThreadFilter(names=("w*",)), Lists()), names="'w")

    assert restored(damaged)[0].names == ()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (ThreadFilter({1, 8, 9}), "8, 9: no thread of process 42"),
        (ThreadFilter(notrace_tids={9}), "9: no thread of process 42"),
        (ThreadFilter(names=("",)), "an empty name"),
        (ThreadFilter(names=("a\0b",)), "an empty name"),
        (ThreadFilter(names=("x" * 600, "y" * 600)), "longer than 1007 bytes"),
    ],
)
def test_what_cannot_be_meant_is_refused(wanted: ThreadFilter, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(wanted, 42, EVERY)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (ThreadFilter(), ""),
        (ThreadFilter({2, 1}), "1, 2"),
        (ThreadFilter({1}, {3}, ("w 1*",), follow=True), "1, named 'w 1*', new ones, not 3"),
        (ThreadFilter(notrace_tids={3}, follow=True), "not 3"),
    ],
)
def test_a_filter_in_words(wanted: ThreadFilter, text: str) -> None:
    assert wanted.text == text
    assert bool(wanted) is bool(text)
