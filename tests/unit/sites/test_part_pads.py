"""The pad of a part of a function: what the assembler says it is, and that it leaves no trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.compiled import assemble
from tests.support.gnu_as import assemble as assemble_programs

from fentry.sites import pad as pads
from fentry.sites.find import _Walk, analyse
from fentry.sites.site import Reason
from fentry.symbols.elf import ElfImage
from fentry.x86.code import Code
from fentry.x86.contract import CallEffect, Contract
from fentry.x86.verify import VerifyError, verify

PAD, CALLED, BACK = 0x10000, 0x50000, 0x8000
MOVED = bytes.fromhex("488b4424f8")  # mov rax, [rsp - 8]

LAYOUT = """
.long 7, 136
call . + 0x3fff8
lea rsp, [rsp + 136]
mov rax, [rsp - 8]
jmp . - 0x801a
.skip 24, 0xcc
lea rsp, [rsp - 128]
push 0
jmp . - 54
"""


def part_pad(moved: bytes = MOVED) -> bytes:
    code = np.frombuffer(moved.ljust(pads.ROOM_BYTES, b"\0"), np.uint8)[None, :]
    one = np.array([PAD], np.uint64)
    return pads.build_pads(
        one, np.array([7], np.uint32), np.array([CALLED], np.uint64), code,
        np.array([len(moved)]), np.array([BACK], np.uint64), np.array([True]),
    )[0].tobytes()  # fmt: skip


def proved(data: bytes, **more: bool) -> None:
    # From the entry on, as a program of its own: nothing lies in front of it.
    begin = pads.PART_OFFSET
    turned = data[begin:] + data[:begin]
    turned = turned[:7] + b"\xeb\x08" + turned[9:]  # the jump, to where the call is by now
    origin = PAD - (pads.PAD_BYTES - begin)
    code = Code(origin, turned)
    called = CallEffect(clobbers=(), clobbers_flags=False, aligned=False)
    verify(
        code,
        Contract(
            stack_bytes=pads.PART_STEP + 8, returns=False, exits={BACK: 0}, red_zone=True,
            calls={CALLED: called},
        ),
    )  # fmt: skip


def test_it_is_what_the_assembler_makes_of_the_layout(tmp_path: Path) -> None:
    _, programs = assemble_programs([], {"pad": LAYOUT}, tmp_path)

    assert part_pad() == programs["pad"]


def test_it_keeps_registers_flags_and_the_red_zone() -> None:
    proved(part_pad(b"\x90"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("488d642480", "488d6424f8"),  # lea rsp, [rsp - 8]: the red zone is written
        ("488d642480", "4883ec8090"),  # sub changes the flags
        ("488da42488000000", "488da42480000000"),  # not all of the step back
    ],
)
def test_the_proof_notices_another_pad(old: str, new: str) -> None:
    changed = part_pad(b"\x90").replace(bytes.fromhex(old), bytes.fromhex(new))
    with pytest.raises(VerifyError):
        proved(changed)


def test_sites_of_parts_lead_to_its_entry_and_of_functions_to_the_call() -> None:
    both = pads.entries(np.array([PAD, PAD + 64], np.uint64), np.array([True, False]))

    assert both.tolist() == [PAD + 55, PAD + 64 + 8]
    assert part_pad()[55:60] == bytes.fromhex("488d642480")


def test_what_is_moved_must_fit() -> None:
    assert len(part_pad(b"\x90" * 29)) == 64
    with pytest.raises(ValueError, match="does not fit"):
        part_pad(b"\x90" * 30)


WIDE = """
.text
.globl f
.type f,@function
f: test %rdi,%rdi
je f.cold
ret
.size f,.-f
.section .text.unlikely,"ax",@progbits
.type f.cold,@function
f.cold: {}
ret
.size f.cold,.-f.cold
"""


@pytest.mark.parametrize(
    ("code", "window"),
    [
        ("sub $8,%rsp; call f; add $8,%rsp", 9),
        (".byte 0x0f,0x1f,0x44,0,0; add $1,%eax", 5),
        ("lea 8(%rsi),%rdi; call *f(%rip); add $1,%eax", 0),  # 4 and 26 bytes, there is room for 29
    ],
)
def test_the_window_of_a_part_fits_its_pad(tmp_path: Path, code: str, window: int) -> None:
    found = analyse(ElfImage.open(assemble(tmp_path, WIDE.format(code))))
    (part,) = found.sites[found.sites["part"]]

    assert part["window"] == window
    assert part["reason"] == (Reason.NONE if window else Reason.NOT_MOVABLE)


def test_parts_that_lead_to_each_other_are_walked_once() -> None:
    # A set of the owners of each would have 800 million members.
    count = 40_000
    owners = _Walk((part + 1, part) for part in range(count))
    assert owners.walk([count]) == set(range(count + 1))
    assert not any(owners.walk([part]) for part in range(count))


def test_a_name_that_only_begins_like_that_of_a_part_is_a_function(tmp_path: Path) -> None:
    wanted = {"main.coldStart": False, "camlM.cold_12": False, "f.cold": True, "f.cold.1": True}
    source = ".text\n" + "".join(
        f".balign 16\n.type {name},@function\n{name}: mov %edi,%eax; add $7,%eax; ret\n"
        for name in wanted
    )
    image = ElfImage.open(assemble(tmp_path, source))
    parts = analyse(image).sites["part"].tolist()
    assert dict(zip(image.functions.names, parts, strict=True)) == wanted
