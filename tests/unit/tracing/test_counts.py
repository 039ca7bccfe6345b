"""Counts: a mapping that a test can compare, in which a misspelt name is never zero."""

from __future__ import annotations

import pytest
from tests.support.tables import LEAF, MAIN, MALLOC, RTLD_MALLOC

from fentry.errors import SymbolNotFound
from fentry.tracing.counts import Counts
from fentry.tracing.functions import Function

CALLS = Counts([MAIN, LEAF, MALLOC], [0, 2, 5])


def test_a_test_may_ask_how_often_a_function_was_called() -> None:
    assert CALLS["leaf"] == 2
    assert CALLS["main"] == 0
    assert CALLS["libc!malloc"] == 5
    assert CALLS["*"] == CALLS.total == 7
    assert CALLS == {"malloc": 5, "leaf": 2}
    assert CALLS != {"malloc": 5}


def test_called_functions_come_most_calls_first() -> None:
    assert list(CALLS.items()) == [("malloc", 5), ("leaf", 2)]
    assert len(CALLS) == 2
    assert CALLS.functions == [MALLOC, LEAF, MAIN]


def test_a_name_that_was_not_traced_is_an_error_with_near_names() -> None:
    with pytest.raises(SymbolNotFound, match="matches 'maloc'") as found:
        CALLS["maloc"]
    assert found.value.near == ("malloc",)
    assert isinstance(found.value, KeyError)
    assert "maloc" not in CALLS and "main" in CALLS
    assert CALLS.get("maloc", -1) == -1


def test_functions_of_one_name_are_told_apart_by_module_then_by_address() -> None:
    again = Function("malloc", "libc.so.6", 0x7700)
    counts = Counts([MALLOC, RTLD_MALLOC, again], [1, 2, 4])
    assert dict(counts) == {
        "malloc@0x7700": 4,
        "ld-linux-x86-64.so.2!malloc": 2,
        "malloc@0x7000": 1,
    }
    assert counts["malloc"] == 7
    assert counts["libc!malloc"] == 5


def test_names_with_the_letters_of_patterns_are_found_as_they_are() -> None:
    name = "std::vector<int>::operator[](unsigned long)"
    counts = Counts([Function(name, "demo", 1)], [3])
    assert counts[name] == 3
    assert counts["std::vector*"] == 3


def test_how_it_is_shown() -> None:
    assert repr(CALLS) == "Counts({'malloc': 5, 'leaf': 2})"
    assert str(CALLS).splitlines() == [
        "       CALLS    SHARE  FUNCTION  MODULE",
        "           5   71.43%  malloc    libc.so.6",
        "           2   28.57%  leaf      demo",
    ]
    many = Counts([Function(f"f{i}", "demo", i) for i in range(30)], [1] * 30)
    assert repr(many).endswith(", ...})")
    assert "30 calls of 30 functions, the first 20" in many._repr_html_()
