"""Lines composed of pieces: equal to joining bytes, for every mixture of lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fentry.formats.lines import Chosen, Computed, Strings, compose

ANY = st.binary(max_size=40)
LONG = st.binary(min_size=8, max_size=40)


def test_lines_of_two_pieces_follow_one_another() -> None:
    first = Chosen(Strings([b"12345678", b"abcdefghi"]), np.array([0, 1, 0]))
    last = Chosen(Strings([b"\n", b" x\n"]), np.array([1, 0, 0]))
    assert bytes(compose(first, [last])) == b"12345678 x\nabcdefghi\n12345678\n"


def test_no_lines_are_no_bytes() -> None:
    assert bytes(compose(Chosen(Strings([]), np.empty(0, np.intp)), [])) == b""


def test_a_short_first_piece_is_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes or more"):
        compose(Chosen(Strings([b"short"]), np.array([0])), [])


@given(st.data())
def test_composed_lines_equal_joined_bytes(data: st.DataObject) -> None:
    tables = [data.draw(st.lists(LONG, min_size=1, max_size=4))]
    tables += data.draw(st.lists(st.lists(ANY, min_size=1, max_size=4), max_size=4))
    word = b"wordword"[: data.draw(st.integers(1, 8))]
    count = data.draw(st.integers(0, 12))
    picks = [
        data.draw(st.lists(st.integers(0, len(table) - 1), min_size=count, max_size=count))
        for table in tables
    ]
    chosen = [
        Chosen(Strings(table), np.array(pick, np.intp))
        for table, pick in zip(tables, picks, strict=True)
    ]
    words = np.full(count, int.from_bytes(word.ljust(8, b"?"), "little"), np.uint64)
    expected = b"".join(
        b"".join([tables[0][picks[0][line]], word])
        + b"".join(table[pick[line]] for table, pick in zip(tables[1:], picks[1:], strict=True))
        for line in range(count)
    )
    assert bytes(compose(chosen[0], [Computed(words, len(word)), *chosen[1:]])) == expected
