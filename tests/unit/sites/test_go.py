"""Code of the Go compiler: its runtime makes pointers into functions (goexit + 1) as it runs."""

from __future__ import annotations

from pathlib import Path

from tests.support.compiled import SHARED, addresses, assemble, run

from fentry.sites.find import analyse
from fentry.sites.site import Reason
from fentry.symbols.elf import ElfImage

# As Go's linker lays it out: its text between two symbols.
GO = """
.text
.macro function name
.p2align 4
.globl \\name
.type \\name,@function
\\name:
    mov %rdi,%rax; mov %rsi,%rcx; ret
.size \\name,.-\\name
.endm
function before
.p2align 4
.type runtime.text,@function
runtime.text:
function runtime.goexit
function main.main
.type runtime.etext,@function
runtime.etext:
function after
"""


def reasons(path: Path) -> dict[str, int]:
    found = analyse(ElfImage.open(path)).sites
    reason_of = dict(zip(found["entry"].tolist(), found["reason"].tolist(), strict=True))
    return {name: reason_of[vaddr] for name, vaddr in addresses(path).items() if vaddr in reason_of}


def test_go_code_is_refused_and_c_beside_it_is_not(tmp_path: Path) -> None:
    found = reasons(assemble(tmp_path, GO, *SHARED))

    assert found["runtime.goexit"] == found["main.main"] == Reason.GO
    assert found["before"] == found["after"] == Reason.NONE


def test_a_stripped_file_with_go_code_is_searched_as_any_other(tmp_path: Path) -> None:
    path = assemble(tmp_path, GO, *SHARED)
    names = addresses(path)
    run("strip", str(path))

    found = analyse(ElfImage.open(path))

    assert found.why_not(names["before"]) == found.why_not(names["after"]) == ""
