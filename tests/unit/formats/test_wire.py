"""The wire format of Protocol Buffers: examples of its documentation, and numbers of every size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fentry.formats.wire import Rows, Slot, message, number, row, varint


def decoded(encoded: bytes) -> int:
    """The value of a varint that is all of `encoded`."""
    assert [byte >> 7 for byte in encoded] == [1] * (len(encoded) - 1) + [0]
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded))


def test_examples_of_the_documentation() -> None:
    # protobuf.dev/programming-guides/encoding
    assert number(1, 150) == bytes.fromhex("08 96 01")
    assert message(2, b"testing") == bytes.fromhex("12 07 74 65 73 74 69 6e 67")
    assert message(3, number(1, 150)) == bytes.fromhex("1a 03 08 96 01")
    assert varint(-2) == bytes.fromhex("fe ff ff ff ff ff ff ff ff 01")


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_as_short_as_it_can_be(value: int) -> None:
    assert decoded(varint(value)) == value
    assert len(varint(value)) == max(1, -(-value.bit_length() // 7))


@pytest.mark.parametrize(("nr_bytes", "bits"), [(4, 28), (8, 56), (10, 64)])
@given(data=st.data())
def test_slots_hold_every_number_that_fits(data: st.DataObject, nr_bytes: int, bits: int) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=5))
    rows = Rows([number(7, 1), Slot(1000, "x", nr_bytes)])
    out = bytes(rows.of({"x": np.array(values, np.uint64)}))
    size = 4 + nr_bytes
    found = [out[start : start + size] for start in range(0, len(out), size)]
    assert [one[:4] for one in found] == [bytes.fromhex("38 01 c0 3e")] * len(values)
    assert [decoded(one[4:]) for one in found] == values


def test_a_row_counts_what_its_slots_take() -> None:
    rows = Rows(row(1, Slot(2, "a", 4), *row(3, number(1, 1), Slot(4, "b", 8))))
    columns = {"a": np.array([1, 300]), "b": np.array([5, -(2**63) + 128])}
    assert bytes(rows.of(columns)).hex(" ") == (
        "0a 12 10 81 80 80 00 1a 0b 08 01 20 85 80 80 80 80 80 80 00 "
        "0a 12 10 ac 82 80 00 1a 0b 08 01 20 80 81 80 80 80 80 80 00"
    )


def test_no_rows_are_no_bytes() -> None:
    assert bytes(Rows([Slot(1, "x", 4)]).of({"x": np.empty(0, np.int64)})) == b""
