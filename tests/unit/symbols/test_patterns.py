"""The words of a filter: how they are read, and what they choose together."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fentry.dispatch.ops import Callback, Ops, split_words
from fentry.errors import BadInput
from fentry.symbols.patterns import Pattern, choose, parse

NAMES = ("alloc", "realloc", "free", "mem_copy", "mem_move", "ns::act(int)")


def chosen(*words: str) -> list[str]:
    def match(pattern: Pattern) -> NDArray[np.bool_]:
        return np.array([pattern.matches(name) for name in NAMES])

    mask = choose(words, len(NAMES), match)
    return [name for name, is_in in zip(NAMES, mask.tolist(), strict=True) if is_in]


@pytest.mark.parametrize(
    ("word", "module", "name", "removes"),
    [
        ("malloc", None, "malloc", False),
        ("libc!mem*", "libc", "mem*", False),
        ("mem[!c]*", None, "mem[!c]*", False),
        ("*!f", "*", "f", False),
        ("!malloc", None, "malloc", True),
        ("!libc!mem*", "libc", "mem*", True),
        ("re:^a.*[!b]$", None, "^a.*[!b]$", False),
        ("libc!re:(?!x)y", "libc", "(?!x)y", False),
        ("!libc!re:x", "libc", "x", True),
    ],
)
def test_a_word_is_module_name_and_mark(
    word: str, module: str | None, name: str, removes: bool
) -> None:
    pattern = parse(word)

    assert (pattern.module, pattern.name, pattern.removes) == (module, name, removes)
    assert not pattern.part
    assert pattern.is_regex == ("re:" in word)


@pytest.mark.parametrize(
    ("word", "module", "name", "removes"),
    [
        ("part:malloc", None, "malloc", False),
        ("part:libc!mem*", "libc", "mem*", False),
        ("!part:re:x", None, "x", True),
        ("part:part:x", None, "part:x", False),
    ],
)
def test_a_word_may_mean_parts(word: str, module: str | None, name: str, removes: bool) -> None:
    pattern = parse(word)

    assert (pattern.module, pattern.name, pattern.removes) == (module, name, removes)
    assert pattern.part
    assert parse("part:0x10").address is None


def test_a_first_word_that_removes_begins_with_nothing_where_that_is_asked_for() -> None:
    mask = choose(("!a", "b"), 2, lambda word: np.array([word.name == "b", False]), from_all=False)

    assert mask.tolist() == [True, False]


@pytest.mark.parametrize(
    ("word", "address", "index"),
    [("0x7f10", 0x7F10, None), ("!17", None, 17), ("f17", None, None), ("libc!17", None, None)],
)
def test_a_word_may_be_an_address_or_a_number(
    word: str, address: int | None, index: int | None
) -> None:
    assert (parse(word).address, parse(word).index) == (address, index)


@pytest.mark.parametrize(
    ("word", "column"),
    [
        ("", 0), ("libc!", 5), ("!", 1), ("!!f", 1), ("mem[ab", 3), ("libc!m[", 6), ("!m[", 2),
        ("re:a(b", 4), ("libc!re:*", 8), ("re:", 3),
    ],
)  # fmt: skip
def test_a_malformed_word_is_shown_with_a_caret(word: str, column: int) -> None:
    with pytest.raises(BadInput) as caught:
        parse(word)

    shown = caught.value.what.split("\n")
    assert shown[1:] == ["    " + word, "    " + " " * column + "^"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), list(NAMES)),
        (("*alloc",), ["alloc", "realloc"]),
        (("re:alloc",), ["alloc", "realloc"]),
        (("re:^alloc",), ["alloc"]),
        (("mem*", "!*move"), ["mem_copy"]),
        (("!*move", "mem*"), list(NAMES)),  # in their order
        (("!mem*", "!*alloc"), ["free", "ns::act(int)"]),
        (("free", "!free"), []),
        (("re:act",), ["ns::act(int)"]),
    ],
)
def test_words_choose_in_their_order(words: tuple[str, ...], names: list[str]) -> None:
    assert chosen(*words) == names


@pytest.mark.parametrize(
    ("wanted", "notrace"),
    [
        (("a", "!b", "c"), ()),
        (("ns::act(int, char*)", "operator new*"), ("x y", "!z")),
        (("it's",), ('a"b',)),
    ],
)
def test_the_text_of_an_ops_gives_its_words_back(
    wanted: tuple[str, ...], notrace: tuple[str, ...]
) -> None:
    assert split_words(Ops(Callback.COUNT, wanted, notrace).text) == (wanted, notrace)


def test_a_text_that_was_cut_off_is_still_read() -> None:
    assert split_words("a 'b c") == (("a", "'b", "c"), ())
