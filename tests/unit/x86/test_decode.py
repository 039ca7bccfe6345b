"""Instruction lengths, boundaries and branch questions."""

from __future__ import annotations

import numpy as np
import pytest

from fentry.x86 import decode

# push rbp; mov rbp, rsp; je 0x401010; call 0x402000; lea rax, [rip + 0x10]; jmp rax; ret
CODE = bytes.fromhex("55 4889e5 740a e8f50f0000 488d0510000000 ffe0 c3")


def test_instructions_have_addresses_and_lengths() -> None:
    found = decode.instructions(CODE, 0x401000)

    assert [(i.ip, i.len) for i in found] == [
        (0x401000, 1),
        (0x401001, 3),
        (0x401004, 2),
        (0x401006, 5),
        (0x40100B, 7),
        (0x401012, 2),
        (0x401014, 1),
    ]


def test_boundaries_are_addresses_as_uint64() -> None:
    found = decode.boundaries(CODE[:6], 0x401000)

    assert found.dtype == np.uint64
    assert found.tolist() == [0x401000, 0x401001, 0x401004]


def test_boundaries_of_nothing_are_none() -> None:
    assert decode.boundaries(b"", 0x401000).tolist() == []


def test_cut_off_instruction_is_refused_with_its_address() -> None:
    with pytest.raises(ValueError, match="no whole instruction at 0x401006: e8 f5"):
        decode.instructions(CODE[:8], 0x401000)


def test_iteration_stops_before_what_is_no_instruction() -> None:
    assert [i.ip for i in decode.iterate(b"\x90\x06", 0)] == [0]


def test_single_instruction_is_decoded_where_it_stands() -> None:
    assert decode.instruction_at(b"\xc3", 0x10).next_ip == 0x11
    with pytest.raises(ValueError, match="at 0x10"):
        decode.instruction_at(b"", 0x10)


def test_branches_calls_and_successors_are_told_apart() -> None:
    found = decode.instructions(CODE, 0x401000)

    assert [decode.is_branch(i) for i in found] == [False, False, True, True, False, True, False]
    assert [decode.is_call(i) for i in found] == [False, False, False, True, False, False, False]
    assert [decode.falls_through(i) for i in found] == [True] * 5 + [False] * 2


def test_targets_are_those_of_direct_branches_and_rip_relative_operands() -> None:
    found = decode.instructions(CODE, 0x401000)

    targets = [decode.branch_target(i) for i in found]
    cells = [decode.rip_relative_target(i) for i in found]
    assert targets == [None, None, 0x401010, 0x402000, None, None, None]
    assert cells == [None, None, None, None, 0x401022, None, None]
