"""Images whose code and data lie gigabytes apart: only what cannot be reached is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.compiled import assemble

from fentry.sites.find import analyse
from fentry.sites.site import Reason
from fentry.symbols.module import open_image

CODE = """
.section .text, "ax", @progbits
.globl _start
_start: ret
.type f_near, @function
f_near: mov near(%rip), %rax
 ret
.size f_near, . - f_near
.type f_far, @function
f_far: mov far(%rip), %rax
 ret
.size f_far, . - f_far
.type f_none, @function
f_none: mov %rdi, %rax
 add $1, %rax
 ret
.size f_none, . - f_none
.type f_nop, @function
f_nop: .byte 0x0f, 0x1f, 0x44, 0, 0
 mov far(%rip), %rax
 ret
.size f_nop, . - f_nop
.data
near: .quad 1
.section .other, "aw", @nobits
far: .zero 8
.section .code, "ax", @progbits
.type f_other, @function
f_other: mov %rdi, %rax
 add $1, %rax
 ret
.size f_other, . - f_other
"""


@pytest.mark.parametrize(
    ("other", "code", "refused"),
    [
        (0x5000_0000, 0x500000, set()),  # 1.25 GiB: all is near
        (0x7000_0000, 0x500000, {"f_far"}),
        (0x7000_0000, 0x6800_0000, {"f_far"}),  # code up to 1.6 GiB
        (0x6000_0000, 0x7800_0000, {"f_far", "f_near", "f_none", "f_nop", "f_other"}),
    ],
)
def test_only_what_cannot_be_reached_is_refused(
    tmp_path: Path, other: int, code: int, refused: set[str]
) -> None:
    places = (f"-Wl,--section-start=.other={other:#x}", f"-Wl,--section-start=.code={code:#x}")
    path = assemble(tmp_path, CODE, "-nostdlib", "-static", "-no-pie", *places)
    image = open_image(str(path))
    sites = analyse(image).sites
    reasons = dict(zip(image.functions.names, sites["reason"].tolist(), strict=True))
    assert {name for name, reason in reasons.items() if reason == Reason.FAR} == refused
    assert set(reasons.values()) <= {Reason.NONE, Reason.FAR}
