"""Carriers: code in whose middle the long jump of a function shorter than five bytes lies."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.support.compiled import addresses, assemble

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


def test_a_pointer_into_the_middle_keeps_a_whole_function_from_being_one(tmp_path: Path) -> None:
    big = "mov %rcx,%rcx; .Lnamed: " + MOVES * 4 + "ret"
    data = ".data\n.quad .Lnamed\n.text\n"
    found = judge(tmp_path, function("big", big), function("tiny", TINY), FAR, data)

    assert site(found, "tiny")["reason"] == Reason.TOO_SHORT
