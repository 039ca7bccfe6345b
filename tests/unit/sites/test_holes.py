"""Short sites: two bytes at the entry, and the long jump in padding nearby."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.support.compiled import addresses, assemble

from fentry.sites.find import analyse
from fentry.sites.site import ModuleSites, Reason, SiteKind
from fentry.symbols.elf import ElfImage

# Something branches to f + 3, behind its first instruction.
ENTERED = "mov %rdi,%rax\n.Linner: cmp $16,%rdx; ja 1f; ret; 1: ret"
PLAIN = "mov %rdi,%rbx; nop; nop; ret"
PAD = ".p2align 4\n"
CROWDED = ".p2align 4, 0\n"


def function(name: str, body: str, *, align: str = CROWDED, after: str = "") -> str:
    return f"""
{align}
.globl {name}
.type {name},@function
{name}: {body}
.size {name}, . - {name}
{after}
"""


def judge(directory: Path, *functions: str) -> tuple[dict[str, int], ModuleSites]:
    path = assemble(directory, ".text\n" + "".join(functions))
    return addresses(path), analyse(ElfImage.open(path))


def site(found: tuple[dict[str, int], ModuleSites], name: str) -> np.void:
    names, sites = found
    (row,) = sites.sites[sites.sites["entry"] == names[name]]
    return row


def gap(before: str, body: str, padding: int) -> str:
    """What follows f: filler, then a function h and NOPs."""
    return f"{before}\n.type h,@function\nh: {body}\n.size h,.-h\n.fill {padding}, 1, 0x90"


BARE = function("g", PLAIN)
BRANCH = function("g", "mov %rdi,%rdx; cmp $1,%rsi; je .Linner; ret")


def test_a_window_that_is_entered_behind_its_first_instruction_is_short(tmp_path: Path) -> None:
    found = judge(tmp_path, function("f", ENTERED, after=PAD), BRANCH)

    row = site(found, "f")
    assert (row["kind"], row["window"], row["reason"]) == (SiteKind.SHORT, 3, Reason.NONE)
    assert row["hole"] == found[0]["f"] + 11  # right behind the last ret
    assert bytes(row["filler"]) == bytes.fromhex("0f1f440000").ljust(16, b"\0")


@pytest.mark.parametrize(
    "body",
    [
        "push %rbx\n.Linner: mov %rdi,%rbx; cmp $16,%rdx; ja 1f; ret; 1: ret",  # entered at + 1
        "ret\n.Linner: mov %rdi,%rbx; cmp $16,%rdx; ja 1f; ret; 1: ret",
        ".byte 0x48\n.Linner: mov %edi,%ebx; cmp $16,%rdx; ja 1f; ret; 1: ret",
    ],
)
def test_one_that_is_entered_between_the_two_bytes_is_refused(tmp_path: Path, body: str) -> None:
    row = site(judge(tmp_path, function("f", body, after=PAD), BRANCH), "f")

    assert (row["kind"], row["reason"], row["hole"]) == (SiteKind.REFUSED, Reason.BRANCH, 0)


@pytest.mark.parametrize(
    ("after", "taken"),
    [
        (".fill 5, 1, 0xcc", True),
        (".fill 5, 1, 0xcc\n.fill 8, 1, 0", False),  # not padding to its end
        (".fill 16, 1, 0x90", True),
        (".fill 4, 1, 0x90", False),
        (".fill 16, 1, 0", False),
        ('.ascii "hello"', False),
        (".fill 3, 1, 0x90\n.Lhidden: .fill 12, 1, 0x90", False),
        (".fill 8, 1, 0x90\n.Lhidden: nop; nop; nop; nop", True),
        (gap(".fill 100, 1, 0", "ret", 16), True),
        (gap(".fill 120, 1, 0", "ret", 16), False),  # out of reach
        (gap("", "xor %eax,%eax", 8), False),  # runs on
        (gap("", "call f", 8), False),
        (gap("", "ud2", 8), True),
        (gap("", "jmp f", 8), True),
    ],
)
def test_a_hole_is_padding_that_nothing_runs(tmp_path: Path, after: str, taken: bool) -> None:
    other = BRANCH.replace("je .Linner", "je .Linner; je .Lhidden") if "hidden" in after else BRANCH
    end = function("end", PLAIN, align="")
    row = site(judge(tmp_path, function("f", ENTERED, after=after), end, other), "f")

    assert (row["kind"] == SiteKind.SHORT) == taken
    assert taken == bool(row["hole"])


def test_two_sites_never_share_a_hole(tmp_path: Path) -> None:
    entered = [ENTERED.replace(".Linner", f".Linner{n}") for n in range(4)]
    branches = "; ".join(f"je .Linner{n}" for n in range(4))
    found = judge(
        tmp_path,
        *(function(f"f{n}", body, align="") for n, body in enumerate(entered)),
        ".fill 16, 1, 0xcc\n",
        function("g", f"mov %rdi,%rdx; {branches}; ret", align=""),
    )

    rows = [site(found, f"f{n}") for n in range(4)]
    holes = sorted(int(row["hole"]) for row in rows if row["hole"])
    assert len(holes) == 3  # sixteen bytes have room for three
    assert all(after - before >= 5 for before, after in pairwise(holes))


def test_the_padding_that_a_short_function_needs_itself_is_no_hole(tmp_path: Path) -> None:
    found = judge(
        tmp_path,
        function("f", ENTERED),
        function("h", "xor %eax,%eax; ret", align="", after=".fill 5, 1, 0xcc\n"),
        function("end", PLAIN, align=""),
        BRANCH,
    )

    assert site(found, "h")["kind"] == SiteKind.RELOCATED
    assert site(found, "f")["kind"] == SiteKind.REFUSED


def test_a_loop_that_begins_behind_the_first_instruction_is_short(tmp_path: Path) -> None:
    body = "mov %rdi,%rax\n1: dec %rsi; jne 1b; ret"
    row = site(judge(tmp_path, function("f", body, after=PAD), BARE), "f")

    assert (row["kind"], row["window"]) == (SiteKind.SHORT, 3)


def test_a_loop_to_the_entry_stays_refused(tmp_path: Path) -> None:
    body = "mov %rdi,%rax\n1: dec %rsi; jne 1b; dec %rdx; jne f; ret"
    row = site(judge(tmp_path, function("f", body, after=PAD), BARE), "f")

    assert (row["kind"], row["reason"]) == (SiteKind.REFUSED, Reason.LOOP)


def test_a_function_that_another_lies_in_does_not_end_for_it(tmp_path: Path) -> None:
    outer = """
.type outer,@function
outer: mov %rdi,%rcx; nop; nop; nop
.type within,@function
within: ret
.size within,.-within
nop; nop
.size outer,.-outer
.fill 9, 1, 0x90
"""
    found = judge(tmp_path, function("f", ENTERED), outer, function("end", PLAIN, align=""), BRANCH)

    assert site(found, "f")["kind"] == SiteKind.REFUSED


def test_a_second_entry_behind_the_two_bytes_is_left_alone(tmp_path: Path) -> None:
    inner = ".globl g\n.type g,@function\ng: cmp $16,%rdx; ja 1f; ret; 1: ret\n.size g,.-g"
    body = f"mov %rdi,%rax\n{inner}"
    found = judge(tmp_path, function("f", body, after=PAD), function("end", PLAIN))

    assert (site(found, "f")["kind"], site(found, "f")["window"]) == (SiteKind.SHORT, 3)
    assert site(found, "g")["reason"] == Reason.NONE
