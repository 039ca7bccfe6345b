"""The assembler: encodings chosen, labels, depth, and what it refuses, by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iced_x86 import Decoder

from fentry.x86.asm import Asm
from fentry.x86.operands import byte, dword, ptr, qword, zmmword
from fentry.x86.registers import (
    al,
    eax,
    ecx,
    fs,
    k1,
    rax,
    rcx,
    rdi,
    rdx,
    rip,
    rsi,
    rsp,
    xmm0,
    zmm31,
)

ORIGIN = 0x401000


def encoded(write: Callable[[Asm], None], origin: int = ORIGIN) -> str:
    asm = Asm()
    write(asm)
    return asm.assemble(origin).data.hex(" ")


def texts(asm: Asm, origin: int = ORIGIN) -> list[str]:
    return [str(i) for i in Decoder(64, asm.assemble(origin).data, ip=origin)]


# The bytes are those of GNU as 2.40.
@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda a: a.push(rax), "50"),
        (lambda a: a.mov(rax, 0x123456789ABC), "48 b8 bc 9a 78 56 34 12 00 00"),
        (lambda a: a.mov(rax, -1), "48 c7 c0 ff ff ff ff"),
        (lambda a: a.mov(rax, 0xFFFFFFFF), "b8 ff ff ff ff"),
        (lambda a: a.mov(eax, dword[rcx - 13]), "8b 41 f3"),
        (lambda a: a.movsxd(rcx, dword[rdx + 36]), "48 63 4a 24"),
        (lambda a: a.mov(rdx, qword[rcx + rax * 8]), "48 8b 14 c1"),
        (lambda a: a.lea(rdi, qword[rdi + 1]), "48 8d 7f 01"),
        (lambda a: a.cmpxchg(qword[rsi], rcx, lock=True), "f0 48 0f b1 0e"),
        (lambda a: a.xadd(qword[rsi], rcx, lock=True), "f0 48 0f c1 0e"),
        (lambda a: a.inc(qword[rsi], lock=True), "f0 48 ff 06"),
        (lambda a: a.mov(rax, qword[fs, -160]), "64 48 8b 04 25 60 ff ff ff"),
        (lambda a: a.stosq(rep=True), "f3 48 ab"),
        (lambda a: a.xsave64(ptr[rdi]), "48 0f ae 27"),
        (lambda a: a.vmovdqu64(zmmword[rsp + 64], zmm31), "62 61 fe 48 7f 7c 24 01"),
        (lambda a: a.kmovq(k1, qword[rsp]), "c4 e1 f8 90 0c 24"),
        (lambda a: a.and_(rsp, -16), "48 83 e4 f0"),
        (lambda a: a.xchg(eax, eax), "87 c0"),
        (lambda a: a.pushf(), "9c"),
    ],
)
def test_instruction_has_the_bytes_of_gnu_as(write: Callable[[Asm], None], expected: str) -> None:
    assert encoded(write) == expected


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_mov_of_a_constant_has_the_value_and_the_shortest_encoding(value: int) -> None:
    data = bytes.fromhex(encoded(lambda a: a.mov(rdx, value)))

    instruction = Decoder(64, data).decode()
    assert instruction.len == len(data)
    assert instruction.immediate(1) % (1 << 64) == value % (1 << 64)
    unsigned = value % (1 << 64)
    shortest = 5 if unsigned < 1 << 32 else 7 if unsigned >= (1 << 64) - (1 << 31) else 10
    # A negative number given as an unsigned one of 64 bits is the same number.
    assert len(data) == shortest


def test_rip_relative_operands_reach_labels_in_front_and_behind() -> None:
    asm = Asm()
    asm.label("start")
    asm.lea(rcx, rip("cell"))
    asm.lea(rdx, rip("start"))
    asm.mov(dword[rip("cell") + 4], 7)
    asm.cmp(byte[rip(0x500000)], 1)
    asm.ret()
    asm.label("cell")
    asm.quad(0)

    code = asm.assemble(ORIGIN)
    found = list(Decoder(64, code.data[:32], ip=ORIGIN))
    targets = [i.ip_rel_memory_address for i in found[:4]]
    assert targets == [0x401020, 0x401000, 0x401024, 0x500000]
    assert code.labels == {"start": 0x401000, "cell": 0x401020}


def test_jump_to_a_label_is_short_when_it_reaches_and_near_when_not() -> None:
    def write(distance: int) -> Callable[[Asm], None]:
        def fill(a: Asm) -> None:
            a.jne("far")
            a.code(b"\x90" * distance)
            a.label("far")

        return fill

    assert encoded(write(127)).startswith("75 7f 90")
    assert encoded(write(128)).startswith("0f 85 80 00 00 00 90")


def test_jump_to_an_absolute_address_always_has_32_bits() -> None:
    assert encoded(lambda a: a.jmp(ORIGIN)) == "e9 fb ff ff ff"
    assert encoded(lambda a: a.call(0x500000)) == "e8 fb ef 0f 00"


@pytest.mark.parametrize("mnemonic", ["jmp", "call", "jne"])
def test_branch_out_of_reach_is_refused(mnemonic: str) -> None:
    asm = Asm()
    getattr(asm, mnemonic)(0x7F0000000000)

    with pytest.raises(ValueError, match=f"{mnemonic} at 0x401000: 0x7f0000000000 is out of reach"):
        asm.assemble(ORIGIN)


def test_rip_relative_operand_out_of_reach_is_refused() -> None:
    asm = Asm()
    asm.lea(rax, rip(0x7F0000000000))

    with pytest.raises(ValueError, match="rip-relative operand at 0x401000"):
        asm.assemble(ORIGIN)


def test_jrcxz_has_no_long_form_and_is_refused_out_of_reach() -> None:
    asm = Asm()
    asm.jrcxz("far")
    asm.code(b"\x90" * 128)
    asm.label("far")

    with pytest.raises(ValueError, match=r"jrcxz at 0x401000: .* out of reach of 8 bits"):
        asm.assemble(ORIGIN)


def test_undefined_label_is_refused_by_name() -> None:
    asm = Asm()
    asm.jmp("nowhere")

    with pytest.raises(ValueError, match="label 'nowhere' is not defined"):
        asm.assemble(ORIGIN)


def test_duplicate_label_is_refused_by_name() -> None:
    asm = Asm()
    asm.label("here")

    with pytest.raises(ValueError, match="label 'here' is defined twice"):
        asm.label("here")


def test_unknown_mnemonic_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no such mnemonic: mvo"):
        Asm().mvo(rax, rcx)


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda a: a.mov(rax, "label"), TypeError, "mov: 'label' is neither"),
        (lambda a: a.mov(rax, 1.5), TypeError, "mov: 1.5 is neither"),
        (lambda a: a.mov(rax, ecx), TypeError, "mov does not take rax, ecx"),
        (lambda a: a.push(ecx), TypeError, "push does not take ecx"),
        (lambda a: a.mov(qword[rax], dword[rcx]), TypeError, r"mov does not take qword\[rax\]"),
        (lambda a: a.inc(ptr[rax]), TypeError, "inc: size of the memory operand is not stated"),
        (lambda a: a.movups(xmm0, qword[rax]), TypeError, "movups does not take xmm0, qword"),
        (lambda a: a.mov(rax, rcx, lock=True), TypeError, "mov takes no lock prefix"),
        (lambda a: a.add(rax, 0xFFFFFFFF), ValueError, "add rax, 0xffffffff: immediate out of"),
        (lambda a: a.mov(al, 256), ValueError, "mov al, 0x100: immediate out of range"),
        (lambda a: a.mov(rax, 1 << 64), ValueError, "immediate out of range"),
        (lambda a: a.jmp("one", "two"), TypeError, "jmp takes one target"),
        (lambda a: a.long(1 << 32), ValueError, "0x100000000 does not fit 4 bytes"),
        (lambda a: a.align(12), ValueError, "alignment 12 is not a power of two"),
        (lambda a: a.code(b"\xe8"), ValueError, "no whole instruction"),
    ],
)
def test_bad_operand_is_refused_by_name(
    write: Callable[[Asm], None], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write(Asm())


def test_align_pads_with_nops_where_control_passes_and_with_int3_where_not() -> None:
    asm = Asm()
    asm.push(rax)
    asm.align(8)
    asm.pop(rax)
    asm.ret()
    asm.align(8)
    asm.quad("end")
    asm.label("end")

    code = asm.assemble(0x401000)
    assert code.data.hex(" ") == (
        "50 0f 1f 80 00 00 00 00 58 c3 cc cc cc cc cc cc 18 10 40 00 00 00 00 00"
    )


def test_distance_is_that_of_two_labels_and_of_no_address() -> None:
    asm = Asm()
    asm.label("start")
    asm.code(b"\x90" * 300)
    asm.label("end")
    asm.distance("start", "end")
    asm.distance("end", "start")

    for origin in (0x401000, 0x7F0000000000):
        data = asm.assemble(origin).data[300:].hex(" ")
        assert data == "2c 01 00 00 00 00 00 00 d4 fe ff ff ff ff ff ff"


def test_align_counts_from_the_address_and_not_from_the_start() -> None:
    asm = Asm()
    asm.align(16)
    asm.label("here")

    assert asm.assemble(0x40100C).labels == {"here": 0x401010}


def test_code_can_be_assembled_again_for_another_address() -> None:
    asm = Asm()
    asm.label("loop")
    asm.jmp("loop")
    asm.call(0x500000)

    assert asm.assemble(0x400000).data.hex(" ") == "eb fe e8 f9 ff 0f 00"
    assert asm.assemble(0x401000).data.hex(" ") == "eb fe e8 f9 ef 0f 00"


def test_entry_follows_pushes_pops_and_changes_of_rsp() -> None:
    asm = Asm()
    asm.mov(rax, asm.entry(8))
    asm.push(rcx)
    asm.pushfq()
    asm.mov(rax, asm.entry(8))
    asm.sub(rsp, 0x20)
    asm.lea(rsp, qword[rsp - 8])
    asm.mov(rax, asm.entry(0))
    asm.add(rsp, 0x28)
    asm.popfq()
    asm.pop(rcx)
    asm.mov(rax, asm.entry(8))

    moves = [text for text in texts(asm) if text.startswith("mov")]
    assert moves == ["mov rax,[rsp+8]", "mov rax,[rsp+18h]", "mov rax,[rsp+38h]", "mov rax,[rsp+8]"]


def test_depth_follows_jumps_to_their_labels() -> None:
    asm = Asm()
    asm.push(rax)
    asm.push(rcx)
    asm.jne("slow")
    asm.pop(rcx)
    asm.pop(rax)
    asm.ret()
    asm.label("slow")

    assert asm.depth == 16


def test_entry_is_refused_where_the_depth_is_not_known() -> None:
    asm = Asm()
    asm.ret()
    asm.label("abort")
    with pytest.raises(ValueError, match="not known"):
        asm.entry(8)

    after = Asm()
    after.and_(rsp, -16)
    with pytest.raises(ValueError, match="not known"):
        after.entry(8)


def test_depth_of_a_label_can_be_stated() -> None:
    asm = Asm()
    asm.ret()
    asm.label("abort", depth=24)
    asm.mov(rax, asm.entry(8))

    asm.mov(ecx, asm.entry(0, dword))

    assert texts(asm)[-2:] == ["mov rax,[rsp+20h]", "mov ecx,[rsp+18h]"]


def test_label_reached_with_two_depths_is_refused() -> None:
    asm = Asm()
    asm.jne("out")
    asm.push(rax)
    with pytest.raises(ValueError, match="label 'out' is reached with depths"):
        asm.label("out")

    back = Asm()
    back.label("loop")
    back.push(rax)
    with pytest.raises(ValueError, match="label 'loop' has depth 0, jumped to with 8"):
        back.jmp("loop")


def test_moved_instructions_keep_the_depth() -> None:
    asm = Asm()
    asm.code(bytes.fromhex("55 41 54"))  # push rbp; push r12

    assert asm.depth == 16


@given(st.lists(st.integers(0, 140), min_size=1, max_size=12), st.data())
def test_every_jump_lands_on_its_label(gaps: list[int], data: st.DataObject) -> None:
    asm = Asm()
    wanted = []
    for n, gap in enumerate(gaps):
        asm.label(f"l{n}")
        target = data.draw(st.integers(0, len(gaps) - 1))
        wanted.append(target)
        asm.jne(f"l{target}")
        asm.code(b"\x90" * gap)

    code = asm.assemble(ORIGIN)
    jumps = [i for i in Decoder(64, code.data, ip=ORIGIN) if i.is_jcc_short_or_near]
    assert [j.near_branch_target for j in jumps] == [code.labels[f"l{n}"] for n in wanted]
    assert [j.ip for j in jumps] == [code.labels[f"l{n}"] for n in range(len(gaps))]
    for jump in jumps:
        distance = jump.near_branch_target - (jump.ip + 2)
        assert jump.len == 2 or not -128 <= distance <= 127
