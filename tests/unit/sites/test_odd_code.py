"""Hard cases 9, 13 and 99: instructions that not every processor has, and odd symbols."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.compiled import addresses, assemble

from fentry.sites.find import analyse
from fentry.sites.site import Reason, SiteKind
from fentry.symbols.elf import ElfImage

REFUSED = SiteKind.REFUSED
PLAIN = "mov $1,%eax; ret"


def judge(directory: Path, source: str) -> dict[str, tuple[SiteKind, Reason]]:
    image = ElfImage.open(assemble(directory, ".text\n" + source))
    return {
        name: (SiteKind(row["kind"]), Reason(row["reason"]))
        for name, row in zip(image.functions.names, analyse(image).sites, strict=True)
    }


def function(name: str, body: str) -> str:
    return f".p2align 4\n.type {name},@function\n{name}: {body}\n.size {name}, . - {name}\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # transactional memory: what begins, ends or leaves a transaction stays where it is
        ("xbegin 1f; 1: ret", (REFUSED, Reason.NOT_MOVABLE)),
        ("nop; xbegin 1f; 1: ret", (REFUSED, Reason.NOT_MOVABLE)),
        ("xabort $5; nop; nop; ret", (REFUSED, Reason.NOT_MOVABLE)),
        ("xend; nop; nop; ret", (REFUSED, Reason.NOT_MOVABLE)),
        ("mov $1,%eax; xbegin 1f; xend; 1: ret", (SiteKind.PROLOGUE, Reason.NONE)),
        ("xtest; je 1f; 1: ret; nop; nop", (SiteKind.RELOCATED, Reason.NONE)),
        # a branch that a transaction aborts to, into the bytes
        ("push %rax; 1: push %rcx; push %rdx; push %rsi; push %rdi; xbegin 1b; ret",
         (REFUSED, Reason.BRANCH)),
        # APX: REX2, and EVEX of map 4; nothing says how long they are
        (".byte 0xd5,0x18,0x89,0xc0; ret; nop", (REFUSED, Reason.INVALID)),
        ("push %rbx; .byte 0xd5,0x18,0x8b,0x05,0,0,0,0; pop %rbx; ret", (REFUSED, Reason.INVALID)),
        (".byte 0x62,0xf4,0x7c,0x18,0x01,0xc1; ret", (REFUSED, Reason.INVALID)),
        # of other modes
        (".byte 0x9a,0,0,0,0,0,0; ret", (REFUSED, Reason.INVALID)),
        (".byte 0x60; mov $1,%eax; ret", (REFUSED, Reason.INVALID)),
        # far and privileged
        ("lretq; nop; nop; nop; nop; nop", (REFUSED, Reason.NOT_MOVABLE)),
        ("iretq; nop; nop; nop; nop; nop", (REFUSED, Reason.NOT_MOVABLE)),
        ("mov %cr3,%rax; nop; nop; ret", (REFUSED, Reason.NOT_MOVABLE)),
        ("rdtscp; nop; nop; ret", (SiteKind.PROLOGUE, Reason.NONE)),
    ],
)  # fmt: skip
def test_rare_instructions_are_moved_or_refused(
    tmp_path: Path, body: str, expected: tuple[SiteKind, Reason]
) -> None:
    assert judge(tmp_path, function("f", body) + function("g", PLAIN))["f"] == expected


def test_only_symbols_of_code_in_code_are_functions(tmp_path: Path) -> None:
    source = (
        function("f", PLAIN)
        + """
.type constant,@object
constant: .quad 0x5555
.size constant, 8
.type thread_local,@tls_object
.data
.type in_data,@function
in_data: .quad 0xc3
.size in_data, 8
.set absolute, 0x1234
.type absolute,@function
"""
    )
    assert judge(tmp_path, source) == {"f": (SiteKind.PROLOGUE, Reason.NONE)}


def test_a_function_inside_another_has_a_site_of_its_own_behind_the_window(tmp_path: Path) -> None:
    source = """
.p2align 4
.type outer,@function
outer: mov $1,%eax
.type at_the_end,@function
at_the_end: mov $2,%ecx
ret
.size at_the_end, . - at_the_end
.size outer, . - outer
.p2align 4
.type spoilt,@function
spoilt: nop
.type within,@function
within: mov $2,%ecx
ret
.size within, . - within
.size spoilt, . - spoilt
"""
    assert judge(tmp_path, source) == {
        "outer": (SiteKind.PROLOGUE, Reason.NONE),
        "at_the_end": (SiteKind.PROLOGUE, Reason.NONE),
        "spoilt": (REFUSED, Reason.POINTER),
        "within": (SiteKind.PROLOGUE, Reason.NONE),
    }


def test_symbols_without_a_size_never_reach_over_the_next_one(tmp_path: Path) -> None:
    source = """
.p2align 4
.type first,@function
first: nop
.type second,@function
second: nop; nop; nop; nop; nop; nop; ret
.type third,@function
third: nop; nop; nop; nop; ret
"""
    path = assemble(tmp_path, ".text\n" + source)
    image = ElfImage.open(path)
    rows = image.functions.rows
    expected = addresses(path)
    sizes = {name: int(rows["size"][i]) for i, name in enumerate(image.functions.names)}
    assert sizes == {
        "first": expected["second"] - expected["first"],
        "second": expected["third"] - expected["second"],
        "third": 5,
    }
    assert judge(tmp_path, source) == {
        "first": (REFUSED, Reason.POINTER),
        "second": (SiteKind.NOP, Reason.NONE),
        "third": (REFUSED, Reason.SIZE_UNKNOWN),
    }
