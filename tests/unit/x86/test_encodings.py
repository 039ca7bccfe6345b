"""The constants decode to what stands beside them, and branches go where they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from iced_x86 import Decoder

from fentry.x86 import encodings as e

ADDRESS = st.integers(0x1000, (1 << 47) - 0x1000)
DISTANCE = st.integers(-(1 << 31), (1 << 31) - 1)


@pytest.mark.parametrize("count", range(1, 10))
def test_each_recommended_nop_is_one_instruction_of_its_length(count: int) -> None:
    instruction = Decoder(64, e.NOPS[count - 1]).decode()

    assert instruction.len == count == len(e.NOPS[count - 1])
    assert str(instruction).startswith("nop") or str(instruction) == "xchg ax,ax"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (e.INT3, "int 3"),
        (e.RET, "ret"),
        (e.ENDBR64, "endbr64"),
        (e.NOP5, "nop dword ptr [rax+rax]"),
    ],
)
def test_constant_decodes_to_its_comment(code: bytes, text: str) -> None:
    assert str(Decoder(64, code).decode()) == text


@pytest.mark.parametrize("count", [0, 1, 5, 9, 10, 31])
def test_nops_fill_exactly(count: int) -> None:
    assert len(e.nops(count)) == count


def test_negative_count_of_nops_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        e.nops(-1)


def test_call_and_jmp_have_the_bytes_of_gnu_as() -> None:
    assert e.call_rel32(0x401000, 0x401005) == bytes.fromhex("e8 00 00 00 00")
    assert e.jmp_rel32(0x401000, 0x400000) == bytes.fromhex("e9 fb ef ff ff")


@pytest.mark.parametrize(("distance", "reached"), [(2**31 - 1, True), (2**31, False)])
def test_reach_ends_at_two_gibibytes_ahead(distance: int, reached: bool) -> None:
    assert e.in_reach(0x1000, 0x1005 + distance) is reached


@pytest.mark.parametrize(("distance", "reached"), [(-(2**31), True), (-(2**31) - 1, False)])
def test_reach_ends_at_two_gibibytes_behind(distance: int, reached: bool) -> None:
    assert e.in_reach(1 << 40, (1 << 40) + 5 + distance) is reached


@pytest.mark.parametrize("encode", [e.call_rel32, e.jmp_rel32])
def test_branch_out_of_reach_is_refused_with_both_addresses(encode: object) -> None:
    with pytest.raises(ValueError, match="0x7f0000000000 is out of reach of a branch at 0x401000"):
        encode(0x401000, 0x7F0000000000)  # type: ignore[operator]


@given(ADDRESS, DISTANCE)
def test_branch_target_is_what_was_encoded(ip: int, distance: int) -> None:
    target = (ip + 5 + distance) % (1 << 64)
    if 0 <= ip + 5 + distance < 1 << 64:
        assert e.branch_target(ip, e.call_rel32(ip, target)) == target
        assert Decoder(64, e.jmp_rel32(ip, target), ip=ip).decode().near_branch_target == target


@pytest.mark.parametrize("code", [e.NOP5, b"\xe8\x00", b""])
def test_branch_target_of_anything_else_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match="no call or jmp rel32"):
        e.branch_target(0x401000, code)


@given(st.lists(st.tuples(ADDRESS, DISTANCE), min_size=1, max_size=50))
def test_many_branches_equal_the_single_ones(sites: list[tuple[int, int]]) -> None:
    kept = [(ip, ip + 5 + d) for ip, d in sites if ip + 5 + d >= 0]
    ips = np.array([ip for ip, _ in kept], np.uint64)
    targets = np.array([target for _, target in kept], np.uint64)

    jumps, calls = e.jmp_rel32_many(ips, targets), e.call_rel32_many(ips, targets)

    assert jumps.shape == (len(kept), 5) and jumps.dtype == np.uint8
    assert jumps.tobytes() == b"".join(e.jmp_rel32(ip, target) for ip, target in kept)
    assert calls.tobytes() == b"".join(e.call_rel32(ip, target) for ip, target in kept)


def test_many_branches_name_the_first_out_of_reach() -> None:
    ips = np.array([0x1000, 0x2000, 0x3000], np.uint64)
    targets = np.array([0x5000, 1 << 40, 1 << 41], np.uint64)

    with pytest.raises(ValueError, match="0x10000000000 is out of reach of a branch at 0x2000"):
        e.call_rel32_many(ips, targets)


def test_many_branches_of_no_site_are_no_bytes() -> None:
    none = np.array([], np.uint64)

    assert e.call_rel32_many(none, none).shape == (0, 5)
