"""How much code no function covers: by what GNU as lays out."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.compiled import assemble

from fentry.symbols.elf import ElfImage
from fentry.symbols.gaps import unknown_code

SOURCE = """
.text
.globl f
.type f, @function
f: .fill 100, 1, 0x90
.size f, 100
.fill {between}, 1, 0xcc
{described}
.globl g
.type g, @function
g: .fill 50, 1, 0x90
.size g, 50
.fill {behind}, 1, 0xcc
"""
FRAME = ".cfi_startproc\n .fill 70, 1, 0x90\n .cfi_endproc"


@pytest.mark.parametrize(
    ("between", "described", "behind", "unknown"),
    [
        (63, "", 0, 0),  # padding
        (64, "", 0, 64),
        (200, "", 300, 500),
        (0, FRAME, 0, 0),  # a frame without a symbol is a function
        (80, FRAME, 10, 80),
    ],
)
def test_gaps_between_functions_are_unknown_code(
    tmp_path: Path, between: int, described: str, behind: int, unknown: int
) -> None:
    source = SOURCE.format(between=between, described=described, behind=behind)
    image = ElfImage.open(assemble(tmp_path, source))
    sizes = 150 + between + behind + (70 if described else 0)
    assert unknown_code(image) == (unknown, sizes)
