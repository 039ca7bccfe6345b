"""Carriers: code in whose middle the long jump of a function shorter than five bytes lies."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.support.compiled import addresses, assemble, run

from fentry.sites.find import analyse
from fentry.sites.site import ModuleSites, Reason, SiteKind
from fentry.symbols.elf import ElfImage

MOVES = "mov %rcx,%rcx; mov %rdx,%rdx; mov %rsi,%rsi; mov %rdi,%rdi;"  # 12 bytes
FAR = ".fill 300, 1, 0\n"  # neither padding nor code that could be run
TINY = "xor %eax,%eax; ret"


def function(name: str, body: str, *, framed: bool = True) -> str:
    start, end = (".cfi_startproc;", ".cfi_endproc;") if framed else ("", "")
    return f"""
.globl {name}
.type {name},@function
{name}: {start} {body}; {end}
.size {name}, . - {name}
"""


def judge(directory: Path, *text: str) -> tuple[dict[str, int], ModuleSites]:
    path = assemble(directory, ".text\n" + FAR + "".join(text) + FAR)
    return addresses(path), analyse(ElfImage.open(path))


def site(found: tuple[dict[str, int], ModuleSites], name: str) -> np.void:
    names, sites = found
    (row,) = sites.sites[sites.sites["entry"] == names[name]]
    return row


@pytest.mark.parametrize(
    ("body", "window"),
    [(TINY, 2), ("jmp big", 2), ("mov %edi,%eax; ret", 2), ("incq (%rdi); ret", 3)],
)
def test_a_function_shorter_than_a_jump_finds_room_in_its_neighbour(
    tmp_path: Path, body: str, window: int
) -> None:
    found = judge(tmp_path, function("big", MOVES * 4 + "ret"), function("tiny", body))

    row = site(found, "tiny")
    assert (row["kind"], row["reason"], row["window"]) == (SiteKind.SHORT, Reason.NONE, window)
    assert (row["hole"], row["carrier"]) == (found[0]["big"] + 44, 10)  # its last ten bytes
    assert bytes(row["filler"]) == bytes.fromhex("4889d2 4889f6 4889ff c3 000000000000")
    assert site(found, "big")["kind"] == SiteKind.PROLOGUE


def test_one_byte_is_too_short(tmp_path: Path) -> None:
    found = judge(tmp_path, function("big", MOVES * 4 + "ret"), function("tiny", "ret"))

    assert site(found, "tiny")["reason"] == Reason.TOO_SHORT


def test_two_functions_never_share_a_carrier(tmp_path: Path) -> None:
    tinies = [function(f"tiny{i}", TINY) for i in range(6)]
    found = judge(tmp_path, function("big", MOVES * 4 + "ret"), *tinies)

    rows = [site(found, f"tiny{i}") for i in range(6)]
    spans = sorted((int(r["hole"]) - 5, int(r["carrier"])) for r in rows if r["hole"])
    assert len(spans) == 3  # of 48 bytes the site of big takes six
    for (start, size), (following, _) in pairwise(spans):
        assert start + size <= following
    assert [r["reason"] for r in rows if not r["hole"]] == [Reason.TOO_SHORT] * 3


@pytest.mark.parametrize(
    "big",
    [
        # entered everywhere: by branches of its own, of another, by a pointer, by a symbol
        "; ".join(f".Le{i}: mov %rcx,%rcx; cmp $1,%rdi; je .Le{i}" for i in range(12)) + "; ret",
        "jmp *%rax; " + MOVES * 4 + "ret",  # a computed jump
        "lea .Lin(%rip),%rax; " + MOVES * 2 + ".Lin: " + MOVES * 2 + "ret",  # an address of it
        "mov $15,%eax; syscall; " + "syscall; nop; nop; " * 12 + "ret",
        "jmp 1f; " + MOVES * 8 + "1: ret",  # nothing runs it: it may be data
        "call f; jmp 1f; call f; " * 10 + "1: ret; f: ret",  # returns between the ten bytes
        "mov (%rdi),%rax; mov (%rsi),%rcx; " * 8 + "ret",  # may fault
        "div %ecx; mov %edx,%eax; " * 10 + "ret",
        'call 1f; .ascii "AAAAAAAAAAAAAAAAAAAAAAAA"; 1: pop %rax; ret',  # data behind a call
    ],
)
def test_what_may_be_entered_is_no_carrier(tmp_path: Path, big: str) -> None:
    found = judge(tmp_path, function("big", big), function("tiny", TINY))

    assert site(found, "tiny")["reason"] == Reason.TOO_SHORT


def test_what_unwinders_enter_or_nothing_describes_is_no_carrier(tmp_path: Path) -> None:
    table = '.section .gcc_except_table,"a"\n.Llsda: .byte 0xff, 0xff, 1, 0\n.text\n'
    handled = function("big", ".cfi_lsda 0x1b, .Llsda; " + MOVES * 4 + "ret")
    unframed = function("big", MOVES * 4 + "ret", framed=False)
    for kind, big, after in (("handled", handled, table), ("unframed", unframed, "")):
        directory = tmp_path / kind
        directory.mkdir()
        found = judge(directory, big, function("tiny", TINY), FAR, after)
        assert site(found, "tiny")["reason"] == Reason.TOO_SHORT, kind


def test_a_second_frame_with_landing_pads_in_the_function_forbids_it(tmp_path: Path) -> None:
    table = '.section .gcc_except_table,"a"\n.Llsda: .byte 0xff, 0xff, 1, 0\n.text\n'
    second = ".cfi_endproc; .cfi_startproc; .cfi_lsda 0x1b, .Llsda; "
    big = function("big", MOVES + second + MOVES * 3 + "ret")
    found = judge(tmp_path, big, function("tiny", TINY), FAR, table)

    assert site(found, "tiny")["reason"] == Reason.TOO_SHORT


@pytest.mark.parametrize(
    "other",
    [
        "lea big+20(%rip),%rax; ret",  # an address of its inside, made elsewhere
        "lea big(%rip),%rax; add %rsi,%rax; jmp *%rax",  # a jump to a sum with it
    ],
)
def test_another_function_may_know_its_inside(tmp_path: Path, other: str) -> None:
    text = (function("big", MOVES * 4 + "ret"), function("tiny", TINY), FAR)
    found = judge(tmp_path, *text, function("other", other))

    assert site(found, "tiny")["hole"] == 0


def test_a_carrier_never_holds_the_function_that_it_serves(tmp_path: Path) -> None:
    nested = ".type tiny,@function; .globl tiny; tiny: mov %rcx,%rcx; .size tiny, 3;"
    found = judge(tmp_path, function("big", MOVES + nested + MOVES + "ret"))

    row = site(found, "tiny")
    start = int(row["hole"]) - 5
    assert not row["hole"] or found[0]["tiny"] + 3 <= start or start + 10 <= found[0]["tiny"]


def test_a_part_known_only_by_its_jumps_has_the_jumps_of_its_owner(tmp_path: Path) -> None:
    # In a file without symbols: what belongs to a function with a computed jump carries nothing.
    owner = "cmp $1,%rdi; je .Lpart; lea .Ltable(%rip),%rdx; movslq (%rdx,%rsi,4),%rax; "
    owner += "add %rdx,%rax; jmp *%rax; .Lback: ret"
    part = ".cfi_startproc; .Lpart: " + MOVES * 4 + "jmp .Lback; .cfi_endproc;\n"
    table = ".section .rodata\n.align 4\n.Ltable: .long .Lback - .Ltable\n.text\n"
    text = FAR + ".p2align 4\n" + function("owner", owner) + FAR + part
    path = assemble(tmp_path, ".text\n" + text + function("tiny", TINY) + FAR + table)
    names = addresses(path)
    stripped = tmp_path / "stripped.so"
    run("strip", "-o", str(stripped), str(path))
    for file in (path, stripped):
        rows = analyse(ElfImage.open(file)).sites
        (row,) = rows[rows["entry"] == names["tiny"]]
        assert not row["carrier"], file


def test_a_pointer_into_the_middle_keeps_a_whole_function_from_being_one(tmp_path: Path) -> None:
    big = "mov %rcx,%rcx; .Lnamed: " + MOVES * 4 + "ret"
    data = ".data\n.quad .Lnamed\n.text\n"
    found = judge(tmp_path, function("big", big), function("tiny", TINY), FAR, data)

    assert site(found, "tiny")["reason"] == Reason.TOO_SHORT
