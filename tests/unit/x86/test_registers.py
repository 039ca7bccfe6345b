"""Register arithmetic: which sums are addresses, and which are refused."""

from __future__ import annotations

import pytest

from fentry.x86.operands import byte, dword, ptr, qword
from fentry.x86.registers import (
    ARGUMENTS,
    CALLEE_SAVED,
    CALLER_SAVED,
    GENERAL_64,
    Address,
    eax,
    fs,
    r12,
    rax,
    rcx,
    rdi,
    rdx,
    register,
    rip,
    rsp,
    xmm3,
)


def test_sum_keeps_base_index_scale_and_displacement() -> None:
    assert rdx + rdi * 8 - 4 == Address(base=rdx, index=rdi, scale=8, displacement=-4)
    assert 16 + rsp == Address(base=rsp, displacement=16)
    assert 2 * rcx + 1 == Address(index=rcx, scale=2, displacement=1)
    assert rax + xmm3 * 4 == Address(base=rax, index=xmm3, scale=4)


def test_rsp_becomes_the_base_in_either_order() -> None:
    assert rax + rsp == Address(base=rsp, index=rax)
    assert rsp + rax == Address(base=rsp, index=rax)


def test_index_of_scale_one_without_base_is_the_base() -> None:
    assert rcx * 1 + 8 == Address(base=rcx, displacement=8)


def test_rsp_as_index_is_refused() -> None:
    with pytest.raises(ValueError, match="rsp cannot be an index"):
        rsp * 2 + rax


def test_three_registers_are_refused() -> None:
    with pytest.raises(TypeError, match="at most one base and one index"):
        rax + rcx + rdx


def test_narrow_register_in_an_address_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="eax cannot be part of an address"):
        eax + 8


def test_odd_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 1, 2, 4 or 8, not 3"):
        rax * 3


def test_displacement_beyond_32_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="0x80000000 does not fit"):
        rax + (1 << 31)


def test_absolute_address_beyond_32_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="0x80000000 does not fit"):
        qword[1 << 31]


def test_rip_relative_address_takes_a_displacement_but_no_register() -> None:
    assert rip("cell") + 8 == Address(target="cell", displacement=8)
    with pytest.raises(TypeError, match="takes no registers"):
        rip("cell") + rax


def test_memory_reads_as_it_was_written() -> None:
    assert repr(dword[rcx + rax * 4 - 13]) == "dword[rcx + rax * 4 + -0xd]"
    assert repr(byte[fs, 0x10]) == "byte[fs, 0x10]"
    assert repr(qword[rip("cell")]) == "qword[cell]"
    assert repr(ptr[0]) == "ptr[0x0]"


def test_segment_must_be_a_segment_register() -> None:
    with pytest.raises(TypeError, match="rax is not a segment register"):
        qword[rax, 8]


def test_sets_of_the_abi_are_complete_and_disjoint() -> None:
    names = {r.name for r in (*CALLER_SAVED, *CALLEE_SAVED, rsp)}

    assert names == {r.name for r in GENERAL_64}
    assert [r.name for r in ARGUMENTS] == ["rdi", "rsi", "rdx", "rcx", "r8", "r9"]


def test_register_is_found_by_its_name() -> None:
    assert register("r12") is r12
    with pytest.raises(KeyError):
        register("r16")
