"""Calls in two traces side by side: which functions are the same, and how they are shown."""

from __future__ import annotations

import pytest

from fentry.formats.diff import Change, Side, diff_table, difference, pair_modules
from fentry.formats.table import FunctionCount


def side(
    *rows: tuple[int, str, str], builds: dict[str, str] | None = None, seconds: float | None = None
) -> Side:
    counts = [FunctionCount(calls, 0.0, function, module) for calls, function, module in rows]
    return Side(counts, builds or {}, seconds)


def calls(before: Side, after: Side) -> list[tuple[str, str, int, int]]:
    rows = difference(before, after).rows
    return [(row.function, row.module, row.before, row.after) for row in rows]


@pytest.mark.parametrize(
    ("before", "after", "pairs"),
    [
        ({"/a/x": "1"}, {"/a/x": "1"}, {"/a/x": "/a/x"}),
        ({"/a/x": "1"}, {"/b/x": "1"}, {"/b/x": "/a/x"}),
        ({"/a/x": "1"}, {"/b/y": "1"}, {"/b/y": "/a/x"}),
        ({"/a/x": "1"}, {"/b/x": "2"}, {"/b/x": "/a/x"}),
        ({"/a/x": "1"}, {"/b/y": "2"}, {}),
        ({"/a/x": ""}, {"/b/y": ""}, {}),
        ({"/a/x": ""}, {"/b/x": ""}, {"/b/x": "/a/x"}),
        # of two files of one name each has the one of its build, or else of its folder
        (
            {"/a/x": "1", "/b/x": "2"},
            {"/c/x": "2", "/a/x": "3", "/b/x": "1"},
            {"/c/x": "/b/x", "/b/x": "/a/x"},
        ),
        ({"/a/x": "1", "/b/x": "2"}, {"/b/x": "3"}, {"/b/x": "/b/x"}),
        # a file that was replaced while it ran
        ({"/a/x": "1"}, {"/a/x": "2", "/a/x (deleted)": "1"}, {"/a/x (deleted)": "/a/x"}),
    ],
)
def test_modules_are_paired_by_build_path_and_file_name(
    before: dict[str, str], after: dict[str, str], pairs: dict[str, str]
) -> None:
    assert pair_modules(before, after) == pairs


def test_functions_are_in_the_order_of_their_change() -> None:
    before = side((5, "same", "m"), (9, "less", "m"), (1, "gone", "m"), (2, "b", "m"))
    after = side((5, "same", "m"), (1, "less", "m"), (8, "new", "m"), (3, "b", "m"))

    assert calls(before, after) == [
        ("less", "m", 9, 1), ("new", "m", 0, 8), ("b", "m", 2, 3), ("gone", "m", 1, 0),
        ("same", "m", 5, 5),
    ]  # fmt: skip


def test_a_function_is_the_same_where_its_module_is() -> None:
    before = side((1, "f", "/a/x"), (2, "f", "/a/y"), builds={"/a/x": "1", "/a/y": "2"})
    after = side((3, "f", "/b/x"), (4, "f", "/a/y"), builds={"/b/x": "1", "/a/y": "2"})

    assert calls(before, after) == [("f", "/a/x", 1, 3), ("f", "/a/y", 2, 4)]


def test_modules_that_are_no_pair_keep_their_functions_apart() -> None:
    before = side((1, "f", "/a/x"), builds={"/a/x": "1"})
    after = side((3, "f", "/a/x"), (4, "f", "/a/z"), builds={"/a/x": "2", "/a/z": "1"})

    assert calls(before, after) == [("f", "/a/x", 1, 4), ("f", "/a/x", 0, 3)]


def test_functions_of_one_name_in_one_module_are_counted_together() -> None:
    assert calls(side((1, "f", "m"), (2, "f", "m")), side((4, "f", "m"))) == [("f", "m", 3, 4)]


def test_another_build_of_a_module_is_told_if_a_function_of_it_was_called() -> None:
    before = side((1, "f", "/x"), builds={"/x": "1", "/y": "1", "/z": ""})
    after = side((1, "f", "/x"), (1, "g", "/z"), builds={"/x": "2", "/y": "2", "/z": "3"})

    assert difference(before, after).rebuilt == ["/x"]


def test_rates_are_those_of_each_side() -> None:
    before, after = side((10, "f", "m"), seconds=2.0), side((3, "f", "m"), (1, "g", "m"), seconds=4)

    assert difference(before, after).rows == [
        Change("f", "m", 10, 3, -7, 5.0, 0.75),
        Change("g", "m", 0, 1, 1, 0.0, 0.25),
    ]


def test_the_table_has_rates_if_both_sides_have() -> None:
    before, after = side((10, "f", "/lib/m"), seconds=2.0), side((3, "f", "/lib/m"), (1, "g", ""))
    timed = Side(after.rows, after.builds, 4.0)

    assert diff_table(difference(before, timed).rows, width=120) == (
        "      BEFORE         AFTER        CHANGE      BEFORE/S       AFTER/S  FUNCTION  MODULE\n"
        "          10             3            -7           5.0           0.8  f         m\n"
        "           -             1            +1             -           0.2  g         -\n"
    )
    assert diff_table(difference(before, after).rows, width=120) == (
        "      BEFORE         AFTER        CHANGE  FUNCTION  MODULE\n"
        "          10             3            -7  f         m\n"
        "           -             1            +1  g         -\n"
    )
    assert diff_table([], width=120) == (
        "      BEFORE         AFTER        CHANGE  FUNCTION  MODULE\n"
    )
