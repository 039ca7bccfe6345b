"""The first bytes of a function: NOPs of every form, and windows of whole instructions."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.compiled import assemble, instructions

from fentry.sites.nop import is_nop_site
from fentry.sites.prologue import prologue_window
from fentry.sites.site import Reason, SiteKind

# SDM Vol. 2, NOP, table 4-12: the recommended forms by length.
FORMS = {
    1: "90",
    2: "6690",
    3: "0f1f00",
    4: "0f1f4000",
    5: "0f1f440000",
    6: "660f1f440000",
    7: "0f1f8000000000",
    8: "0f1f840000000000",
    9: "660f1f840000000000",
}


@pytest.mark.parametrize(
    "lengths",
    [(5,), (1,) * 5, (2, 3), (3, 2), (4, 1), (1, 4), (2, 2, 1), (1, 1, 3), (5, 9), (1, 4, 7)],
)
def test_nops_that_end_after_five_bytes_are_a_site(lengths: tuple[int, ...]) -> None:
    assert is_nop_site(bytes.fromhex("".join(FORMS[n] for n in lengths)) + b"\xc3")


@pytest.mark.parametrize("lengths", [(6,), (7,), (3, 3), (4, 2), (2, 2, 2), (1,), (4,), (9, 9)])
def test_nops_that_do_not_end_there_are_none(lengths: tuple[int, ...]) -> None:
    assert not is_nop_site(bytes.fromhex("".join(FORMS[n] for n in lengths)) + b"\xc3")


@pytest.mark.parametrize(
    "code",
    ["", "90909090", "9090909090"[:8] + "c3", "f390909090", "4890909090"[:2] + "8bec9090", "c3"],
)
def test_other_bytes_are_no_nop_site(code: str) -> None:
    assert not is_nop_site(bytes.fromhex(code))


CORPUS = """
push %rbp
push %r12
mov %rsp,%rbp
mov %rdi,%rax
sub $0x18,%rsp
sub $0x1008,%rsp
xor %eax,%eax
movss %xmm0,-4(%rsp)
movups %xmm0,0x20(%rdi)
vmovdqu32 %zmm17,0x40(%rdi)
vpxor %xmm1,%xmm1,%xmm1
mov $0x12345678,%r9d
movabs $0x1122334455667788,%r10
mov %fs:0x28,%rax
cmpq $0x0,0x10(%rdi)
movzwl 0x2(%rsi),%ecx
imul $0x61,%rdi,%rdi
lock xadd %eax,(%rdi)
bsr %rdi,%rax
andn %rax,%rdi,%rsi
popcnt %rdi,%rax
movq %xmm1,%rax
stmxcsr -8(%rsp)
fldcw -2(%rsp)
rep stosq
crc32b %sil,%edi
rdtscp
cpuid
cmove %rdi,%rsi
setne %al
bswap %edi
movbe (%rdi),%rax
lea 0x8(%rdi,%rsi,4),%rax
"""


def test_windows_end_where_gnu_as_ended_its_instructions(tmp_path: Path) -> None:
    path = assemble(tmp_path, ".text\n" + CORPUS + "ret\n" * 32)
    code = b"".join(raw for raw, _ in instructions(path).values())
    ends = []
    for raw, _ in instructions(path).values():
        ends.append((ends[-1] if ends else 0) + len(raw))

    starts = [0, *ends[: len(CORPUS.split("\n")) - 6]]
    for start in starts:
        expected = next(end for end in ends if end >= start + 5) - start
        found = prologue_window(code[start:], 0x1000, len(code) - start)
        assert found == (SiteKind.PROLOGUE, expected, Reason.NONE)


@pytest.mark.parametrize(
    ("code", "size", "reason"),
    [
        ("554889", 3, Reason.INVALID),
        ("55", 1, Reason.TOO_SHORT),
        ("", 0, Reason.TOO_SHORT),
        ("5590909090909090", 1, Reason.TOO_SHORT),  # runs off its end
        ("c3", 1, Reason.TOO_SHORT),  # nothing is known of what follows
        ("c390904889c7", 1, Reason.TOO_SHORT),  # not padding
        ("c300000000", 1, Reason.TOO_SHORT),  # zeros are instructions
    ],
)
def test_code_that_ends_too_early_has_no_window(code: str, size: int, reason: Reason) -> None:
    assert prologue_window(bytes.fromhex(code), 0x1000, size) == (SiteKind.REFUSED, 0, reason)


@pytest.mark.parametrize(
    ("code", "size"),
    [
        ("c3" + FORMS[9], 1),
        ("31c0c3" + FORMS[5] * 2, 3),
        ("c3cccccccccc", 1),
        ("ebfe" + "90" * 8, 2),
        ("ffe0" + FORMS[1] + FORMS[6], 2),
    ],
)
def test_a_short_function_takes_the_padding_behind_it(code: str, size: int) -> None:
    found = prologue_window(bytes.fromhex(code), 0x1000, size)

    assert found == (SiteKind.RELOCATED, size, Reason.NONE)
