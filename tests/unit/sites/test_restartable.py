"""Restartable sequences of the program (rseq): the kernel knows their addresses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.compiled import SHARED, addresses, assemble

from fentry.sites.find import analyse
from fentry.sites.site import ModuleSites, Reason
from fentry.symbols.elf import ElfImage

SEQUENCES = """
.text
.macro function name
.p2align 4
.globl \\name
.type \\name,@function
\\name:
.endm
function before
    mov %rdi,%rax; mov %rsi,%rcx; mov %rdx,%rdx
1:  mov %rdi,(%rsi)
2:  ret
.size before,.-before
function starts_it
3:  mov %rdi,%rax; mov %rsi,%rcx
    mov %rdi,(%rsi)
4:  ret
.size starts_it,.-starts_it
function inside
    mov %rdi,%rax; mov %rsi,%rcx; ret
.size inside,.-inside
function outer
    ret; nop; nop; nop; nop; nop; nop
.size outer,.-outer
.p2align 4
.long 0x53053053
.type abort,@function
.globl abort
abort: mov %rdi,%rax; mov %rsi,%rcx; ret
.size abort,.-abort
.section __rseq_cs,"aw"
.balign 32
.long 0, 0
.quad 1b, 2b-1b, abort
.long 0, 0
.quad 3b, 4b-3b, abort
.long 0, 0
.quad inside, 4, abort
.long 7, 0  # no version that there is
.quad before, 4, abort
"""


def judge(directory: Path, *flags: str) -> tuple[dict[str, int], ModuleSites, ElfImage]:
    path = assemble(directory, SEQUENCES, *flags)
    image = ElfImage.open(path)
    return addresses(path), analyse(image), image


def reason(found: tuple[dict[str, int], ModuleSites, ElfImage], name: str) -> int:
    names, sites, _ = found
    (row,) = np.flatnonzero(sites.sites["entry"] == names[name])
    return int(sites.sites["reason"][row])


@pytest.mark.parametrize(
    "flags",
    [
        SHARED,
        (*SHARED, "-Wl,-z,pack-relative-relocs"),
        ("-nostdlib", "-static", "-no-pie", "-Wl,-e,outer"),
    ],
    ids=["rela", "relr", "fixed"],
)
def test_a_function_in_a_restartable_sequence_is_refused(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    found = judge(tmp_path, *flags)

    assert reason(found, "before") == Reason.NONE
    assert reason(found, "starts_it") == Reason.RESTARTABLE
    assert reason(found, "inside") == Reason.RESTARTABLE
    assert reason(found, "abort") == Reason.NONE
    names = found[0]
    assert sorted(found[2].restartable, key=lambda span: span.start) == [
        range(names["before"] + 9, names["before"] + 12),
        range(names["starts_it"], names["starts_it"] + 9),
        range(names["inside"], names["inside"] + 4),
    ]


def test_a_program_without_any_has_none() -> None:
    assert ElfImage.open("/bin/true").restartable == []
