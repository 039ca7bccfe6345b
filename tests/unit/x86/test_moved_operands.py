"""Hard cases 8 and 9: operands relative to rip in every encoding, moved; objdump is the judge."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.compiled import SHARED, assemble, instructions, run

from fentry.x86.relocate import CannotMove, relocate

AWAY = 0x4000_0000  # how far they are moved
STEP = 64

# All with an operand in `data`, so that only its distance may change. By encoding: legacy with and
# without an immediate of 1, 2 and 4 bytes behind the distance, lock and other prefixes, 0F, 0F 38,
# 0F 3A, x87, VEX of two and three bytes, EVEX with masks, broadcast and immediates.
FORMS = """
mov data(%rip), %rax            | lea data(%rip), %r15            | movabs $7, %rax
addb $5, data(%rip)             | addw $0x1234, data(%rip)        | addl $0x12345678, data(%rip)
addq $-5, data(%rip)            | cmpq $0x12345678, data(%rip)    | testb $1, data(%rip)
testw $0x101, data(%rip)        | testq $0x10101, data(%rip)      | movw $0x1234, data(%rip)
movl $1, data(%rip)             | movb $1, data(%rip)             | imul $5, data(%rip), %rax
imul $0x12345, data(%rip), %r9  | imulw $0x1234, data(%rip), %ax  | shlq $3, data(%rip)
sarl data(%rip)                 | rolb %cl, data(%rip)            | shld $4, %rax, data(%rip)
shrd %cl, %rax, data(%rip)      | btsq $3, data(%rip)             | bt %rax, data(%rip)
notq data(%rip)                 | negb data(%rip)                 | mulq data(%rip)
divl data(%rip)                 | incw data(%rip)                 | push data(%rip)
pop data(%rip)                  | xchg %rax, data(%rip)           | lock xaddq %rax, data(%rip)
lock cmpxchg %rcx, data(%rip)   | lock cmpxchg16b data(%rip)      | lock addl $1, data(%rip)
lock btsl $3, data(%rip)        | jmp *data(%rip)                 | notrack jmp *data(%rip)
movzbl data(%rip), %eax         | movswq data(%rip), %rax         | movslq data(%rip), %rax
sete data(%rip)                 | cmovne data(%rip), %rax         | bsf data(%rip), %rax
popcnt data(%rip), %rax         | lzcnt data(%rip), %eax          | movbe data(%rip), %rax
movbe %eax, data(%rip)          | crc32b data(%rip), %eax         | adcx data(%rip), %rax
movnti %rax, data(%rip)         | prefetcht0 data(%rip)           | clflushopt data(%rip)
clwb data(%rip)                 | movdiri %rax, data(%rip)        | movdir64b data(%rip), %rax
rdrand %rax                     | fxsave64 data(%rip)             | xsaveopt data(%rip)
ldmxcsr data(%rip)              | fldl data(%rip)                 | fildq data(%rip)
fstpt data(%rip)                | fldcw data(%rip)                | fcoms data(%rip)
movups data(%rip), %xmm1        | movdqa %xmm9, data(%rip)        | movd data(%rip), %xmm3
addsd data(%rip), %xmm0         | cvtsi2sdq data(%rip), %xmm0     | ucomiss data(%rip), %xmm0
pshufd $0x1b, data(%rip), %xmm2 | pinsrw $3, data(%rip), %xmm2    | pextrb $3, %xmm2, data(%rip)
palignr $5, data(%rip), %xmm3   | roundsd $1, data(%rip), %xmm3   | pcmpestri $1, data(%rip), %xmm3
aesenc data(%rip), %xmm3        | gf2p8affineqb $3, data(%rip), %xmm1 | sha256rnds2 data(%rip), %xmm1
movq data(%rip), %mm3           | pshufw $1, data(%rip), %mm3     | cmpps $2, data(%rip), %xmm4
vmovdqu data(%rip), %ymm1       | vmovdqu %ymm9, data(%rip)       | vaddpd data(%rip), %ymm1, %ymm2
vpermq $0x1b, data(%rip), %ymm1 | vpalignr $5, data(%rip), %ymm1, %ymm9 | vperm2i128 $1, data(%rip), %ymm1, %ymm2
vfmadd231sd data(%rip), %xmm1, %xmm2 | vblendvps %xmm1, data(%rip), %xmm2, %xmm3 | vinsertf128 $1, data(%rip), %ymm1, %ymm2
vbroadcastss data(%rip), %ymm3  | vcvtph2ps data(%rip), %ymm3     | vpcmpgtq data(%rip), %xmm8, %xmm9
andn data(%rip), %rax, %rcx     | bextr %rax, data(%rip), %rcx    | rorx $7, data(%rip), %rax
mulx data(%rip), %rax, %rcx     | pdep data(%rip), %rax, %rcx     | shlx %rax, data(%rip), %rcx
vmovdqu64 data(%rip), %zmm1     | vmovdqu8 data(%rip), %zmm1{%k1}{z} | vmovups %zmm17, data(%rip){%k3}
vaddpd data(%rip){1to8}, %zmm1, %zmm2 | vpternlogd $0xca, data(%rip), %zmm1, %zmm2 | vpcmpud $2, data(%rip), %zmm1, %k2
vpermt2b data(%rip), %zmm1, %zmm2 | vshufi64x2 $1, data(%rip), %zmm1, %zmm2 | vpslld $3, data(%rip), %zmm9
vaddsd data(%rip), %xmm17, %xmm18 | vpdpbusd data(%rip), %ymm17, %ymm18 | vaddph data(%rip), %zmm1, %zmm2
kmovq data(%rip), %k3           | kmovw %k3, data(%rip)           | vgetmantsh $3, data(%rip), %xmm1, %xmm2
mov %fs:data(%rip), %rax        | addl $1, %gs:data(%rip)         | data16 lea data(%rip), %rdi
"""  # noqa: E501


def texts(listing: dict[int, tuple[bytes, str]]) -> dict[int, str]:
    """objdump's texts: the distance taken out, the address it leads to kept."""
    plain = {}
    for address, (_, text) in listing.items():
        code, _, target = text.partition("#")
        words = re.sub(r"-?0x[0-9a-f]+\(%rip\)", "(%rip)", code).split()
        plain[address] = " ".join([*words, "#", *target.removeprefix(" 0x").split()[:1]])
    return plain


def test_an_operand_relative_to_rip_leads_where_it_led(tmp_path: Path) -> None:
    forms = [form.strip() for line in FORMS.strip().splitlines() for form in line.split("|")]
    source = "".join(f".balign {STEP}, 0x90\n{form}\n" for form in forms)
    tail = ".balign 64, 0x90\n.section .data\n.skip 123\n.hidden data\ndata: .skip 64\n"
    path = assemble(tmp_path, ".text\n" + source + tail, *SHARED, name="forms.so")
    listing = instructions(path)
    first = min(listing) // STEP * STEP
    assert {first + STEP * i for i in range(len(forms))} <= listing.keys()
    moved = b""
    for i in range(len(forms)):
        raw, _ = listing[first + STEP * i]
        found = relocate(raw, first + STEP * i, first + AWAY + STEP * i)
        assert len(found.code) == len(raw)
        moved += found.code.ljust(STEP, b"\x90")
    before, after = texts(listing), texts(instructions_of(moved, first + AWAY, tmp_path))
    for i, form in enumerate(forms):
        here = before[first + STEP * i]
        assert after[first + AWAY + STEP * i] == here, form
        assert ("data" in form) == bool(here.partition("#")[2]), form


def instructions_of(code: bytes, address: int, directory: Path) -> dict[int, tuple[bytes, str]]:
    """objdump's listing of bare bytes that lie at an address."""
    path = directory / "moved.bin"
    path.write_bytes(code)
    raw = ("-b", "binary", "-m", "i386:x86-64", f"--adjust-vma={address:#x}")
    text = run("objdump", "-D", "-w", "--no-show-raw-insn", *raw, str(path))
    lines = re.finditer(r"^ *([0-9a-f]+):\t(.*)$", text, re.MULTILINE)
    return {int(line[1], 16): (b"", line[2]) for line in lines}


@pytest.mark.parametrize(
    "code",
    [
        "mov data(%eip), %eax",  # cut to 32 bits
        "lea data(%eip), %rax",
        "ljmp *data(%rip)",
        "lcall *data(%rip)",
    ],
)
def test_an_operand_whose_address_is_cut_is_refused(tmp_path: Path, code: str) -> None:
    path = assemble(tmp_path, f".text\n{code}\n.data\n.hidden data\ndata: .quad 0\n")
    listing = instructions(path)
    start = min(listing)
    with pytest.raises(CannotMove):
        relocate(listing[start][0], start, start + 0x1000)


@pytest.mark.parametrize("distance", [0x7FFF_FFFF - 0x1000, -0x7FFF_FFFF])
def test_an_operand_at_the_end_of_the_reach_is_moved_as_far_as_it_goes(distance: int) -> None:
    # mov distance(%rip), %rax at 1 << 40; the displacement has its last value at the new place
    start = 1 << 40
    code = b"\x48\x8b\x05" + distance.to_bytes(4, "little", signed=True)
    limit = 0x7FFF_FFFF if distance > 0 else -0x8000_0000
    to = start + distance - limit
    assert relocate(code, start, to).code == code[:3] + limit.to_bytes(4, "little", signed=True)
    with pytest.raises(CannotMove, match="out of reach"):
        relocate(code, start, to + (-1 if distance > 0 else 1))
