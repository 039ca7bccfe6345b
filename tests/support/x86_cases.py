"""Instructions to compare with another assembler: every form, and all registers and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from iced_x86 import OpCodeInfo, OpCodeOperandKind

from fentry.x86 import forms
from fentry.x86 import registers as r
from fentry.x86.operands import (
    STATED_BITS,
    Memory,
    Size,
    byte,
    dword,
    ptr,
    qword,
    tbyte,
    word,
    xmmword,
    ymmword,
    zmmword,
)
from fentry.x86.registers import GENERAL_8, GENERAL_16, GENERAL_32, GENERAL_64, HIGH_8, Register
from tests.support.gnu_as import Case

DISPLACEMENTS = (0, 1, -1, 127, -128, 128, -129, 0x12345678, -(1 << 31), (1 << 31) - 1)
IMMEDIATES = (0, 1, -1, 2, 127, -128, 128, -129, 255, 256, 0x7FFF, -0x8000, 0x8000, 0xFFFF)
WIDE = (0x7FFFFFFF, -0x80000000, 0x80000000, 0xFFFFFFFF, 0xFFFFFF80)
HUGE = (1 << 32, 0x123456789ABC, (1 << 63) - 1, -(1 << 63), 1 << 63, (1 << 64) - 1, -(1 << 31) - 1)
CONDITION_NAMES = "o no b ae e ne be a s ns p np l ge le g"
CONDITIONS = CONDITION_NAMES.split()
SAVE_AREAS = (
    "xsave xsave64 xrstor xrstor64 xsavec xsavec64 xsaveopt64 fxsave fxsave64 fxrstor fxrstor64"
)
SIZED = ((GENERAL_8, byte), (GENERAL_16, word), (GENERAL_32, dword), (GENERAL_64, qword))
PLACES = (r.rax + 0, r.rsp + 8, r.r12 + 0, r.r13 + 0, r.rbp + r.r9 * 8 + 0x1234, r.r10 * 2 + 5)


def fits(value: int, bits: int) -> bool:
    return -(1 << (bits - 1)) <= value < 1 << bits


def addresses() -> Iterator[Case]:
    """Every base, index, scale and size of displacement."""
    for base, displacement in product(GENERAL_64, DISPLACEMENTS):
        yield Case("mov", (r.rdx, qword[base + displacement]))
        yield Case("mov", (byte[base + displacement], r.sil))
    for base, index, scale in product(GENERAL_64, GENERAL_64, (1, 2, 4, 8)):
        if index is not r.rsp:
            for displacement in (0, -4, 0x1000):
                yield Case("lea", (r.r11, ptr[base + index * scale + displacement]))
    for index, scale in product(GENERAL_64, (2, 4, 8)):
        if index is not r.rsp:
            yield Case("mov", (r.ecx, dword[index * scale + 0x40]))
    for place in (0, 8, 0x1000, (1 << 31) - 1, -(1 << 31), -160):
        yield Case("mov", (r.rax, qword[place]))
        yield Case("mov", (r.r9d, dword[r.fs, place]))
        yield Case("mov", (qword[r.gs, place], r.rcx))
        yield Case("inc", (qword[r.fs, place],), lock=True)
    for segment, inner in product((r.fs, r.gs), PLACES):
        yield Case("mov", (r.rax, qword[segment, inner]))


def arithmetic() -> Iterator[Case]:
    """The eight two-operand operations, test, and the one-operand ones, in all sizes."""
    for mnemonic in ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"]:
        for group, size in SIZED:
            bits = size.bits
            for register in group:
                yield Case(mnemonic, (register, group[3]))
                yield Case(mnemonic, (group[0], register))
                yield Case(mnemonic, (register, size[r.rcx + 8]))
                yield Case(mnemonic, (size[r.r9 + 0x100], register))
                for value in (*IMMEDIATES, *WIDE):
                    usable = fits(value, bits) if bits < 64 else -(1 << 31) <= value < 1 << 31
                    if usable:
                        yield Case(mnemonic, (register, value))
            for value, place in product((1, -1, 100), PLACES):
                yield Case(mnemonic, (size[place], value))
                yield Case(mnemonic, (size[place], value), lock=mnemonic != "cmp")
    for group, size in SIZED:
        for register in group:
            yield Case("test", (register, group[1]))
            yield Case("test", (register, 5))
            yield Case("test", (size[r.rdi], register))
            yield Case("test", (register, size[r.rdi]))
            for mnemonic in ["inc", "dec", "neg", "not", "mul", "imul", "div", "idiv"]:
                yield Case(mnemonic, (register,))
            for mnemonic in ["rol", "ror", "rcl", "rcr", "shl", "shr", "sar"]:
                yield Case(mnemonic, (register, 1))
                yield Case(mnemonic, (register, 3))
                yield Case(mnemonic, (register, r.cl))
        for place, mnemonic in product(PLACES, ("inc", "dec", "neg", "not")):
            yield Case(mnemonic, (size[place],), lock=True)


def moves() -> Iterator[Case]:
    """mov, movzx, movsx, movsxd, cmovcc, setcc, xchg, bswap, push, pop."""
    for group, size in SIZED:
        for one, two in product(group, group):
            yield Case("mov", (one, two))
        for register in group:
            yield Case("xchg", (register, group[2]))
            yield Case("xchg", (group[0], register))
            yield Case("xchg", (register, group[0]))
            yield Case("xchg", (size[r.rsi], register))
            yield Case("xchg", (register, size[r.rsi]))
            for value in (*IMMEDIATES, *WIDE, *HUGE):
                if fits(value, size.bits):
                    yield Case("mov", (register, value))
        for place, value in product(PLACES, (0, 1, -1, 100)):
            yield Case("mov", (size[place], value))
    for one, two in product(HIGH_8, (*HIGH_8, r.al, r.bl)):
        yield Case("mov", (one, two))
        yield Case("mov", (two, one))
    for mnemonic, source in product(("movzx", "movsx"), (byte, word)):
        for target in (*GENERAL_32, *GENERAL_64):
            yield Case(mnemonic, (target, source[r.rcx + 3]))
            small = GENERAL_8 if source is byte else GENERAL_16
            yield Case(mnemonic, (target, small[target.number]))
    for target in GENERAL_64:
        yield Case("movsxd", (target, dword[r.rdx + 36]))
        yield Case("movsxd", (target, GENERAL_32[target.number]))
        yield Case("push", (target,))
        yield Case("pop", (target,))
        yield Case("push", (qword[target + 16],))
        yield Case("pop", (qword[target + 16],))
        yield Case("push", (GENERAL_16[target.number],))
        yield Case("bswap", (target,))
        yield Case("jmp", (target,))
        yield Case("call", (target,))
        yield Case("jmp", (qword[target + 8],))
        yield Case("call", (qword[target * 8 + 8] if target is not r.rsp else qword[target],))
    for value in (0, 1, -1, 127, -128, 128, -129, (1 << 31) - 1, -(1 << 31)):
        yield Case("push", (value,))
    for condition, (group, size) in product(CONDITIONS, SIZED):
        for register in group:
            if size is byte:
                yield Case(f"set{condition}", (register,))
            else:
                yield Case(f"cmov{condition}", (register, group[5]))
                yield Case(f"cmov{condition}", (register, size[r.rsp + 8]))
    for segment in (r.fs, r.gs):
        yield Case("push", (segment,))
        yield Case("pop", (segment,))
        yield Case("mov", (r.eax, segment))


def atomics_and_bits() -> Iterator[Case]:
    """What rings are reserved with, and bit operations."""
    for mnemonic, (group, size) in product(("xadd", "cmpxchg"), SIZED):
        for register, place, lock in product(group, PLACES, (False, True)):
            yield Case(mnemonic, (size[place], register), lock=lock)
    for place in PLACES:
        yield Case("cmpxchg8b", (qword[place],), lock=True)
        yield Case("cmpxchg16b", (xmmword[place],), lock=True)
        for mnemonic in ("bt", "bts", "btr", "btc"):
            yield Case(mnemonic, (qword[place], 5))
            yield Case(mnemonic, (dword[place], r.ecx))
        yield Case("movbe", (r.rax, qword[place]))
        yield Case("crc32", (r.eax, byte[place]))
    for mnemonic, register in product(["bsf", "bsr", "popcnt", "lzcnt", "tzcnt"], GENERAL_64):
        yield Case(mnemonic, (register, r.rdx))
        yield Case(mnemonic, (register, qword[r.rsp]))
    for register in GENERAL_64:
        yield Case("imul", (register, r.rbx))
        yield Case("imul", (register, r.rbx, 24))
        yield Case("imul", (register, qword[r.rbx], 2400))
        yield Case("shld", (register, r.rdx, 3))
        yield Case("shrd", (register, r.rdx, r.cl))
        yield Case("andn", (register, r.rdx, r.rcx))
        yield Case("shlx", (register, r.rdx, r.rcx))
        yield Case("rorx", (register, r.rdx, 7))


def system() -> Iterator[Case]:
    """Clocks, flags, segment bases, save areas, strings."""
    plain = (
        "rdtsc rdtscp lahf sahf pushfq popfq cld std cmc clc stc syscall ret leave nop pause ud2 "
        "int3 endbr64 lfence mfence sfence cpuid xgetbv rdpmc cdq cqo cdqe cwde cbw hlt vzeroupper "
        "vzeroall emms fninit serialize xend clac stac wrpkru rdpkru"
    )
    for mnemonic in plain.split():
        yield Case(mnemonic)
    for mnemonic in ("movsb", "movsw", "movsq", "stosb", "stosd", "stosq", "lodsb", "lodsq"):
        yield Case(mnemonic)
        yield Case(mnemonic, rep=True)
    for mnemonic in ("scasb", "scasq", "cmpsb", "cmpsq"):
        yield Case(mnemonic, repne=True)
    for register in GENERAL_64:
        for mnemonic in ("rdpid", "rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase"):
            yield Case(mnemonic, (register,))
        small = GENERAL_32[register.number]
        for mnemonic in ("lsl", "lar"):
            yield Case(mnemonic, (small, small))
            yield Case(mnemonic, (small, word[register]))
        yield Case("rdrand", (register,))
    for place in PLACES:
        for mnemonic in SAVE_AREAS.split():
            yield Case(mnemonic, (ptr[place],))
        for mnemonic in ("stmxcsr", "ldmxcsr", "vstmxcsr", "vldmxcsr"):
            yield Case(mnemonic, (dword[place],))
        for mnemonic in ("prefetcht0", "prefetchw", "clflush", "clflushopt", "clwb"):
            yield Case(mnemonic, (byte[place],))
        yield Case("fld", (qword[place],))
        yield Case("fstp", (tbyte[place],))
        yield Case("fnstcw", (word[place],))
        yield Case("fldcw", (word[place],))
        yield Case("fnstenv", (ptr[place],))
        yield Case("fldenv", (ptr[place],))
        yield Case("nop", (dword[place],))
        yield Case("nop", (word[place],))
    for register in r.X87:
        yield Case("fld", (register,))
        yield Case("fstp", (register,))
    for value in (0, 8, 128, 0xFFFF):
        yield Case("ret", (value,))
        yield Case("enter", (value, 0))
    yield Case("int", (0x80,))


def vectors() -> Iterator[Case]:
    """SSE, AVX and AVX-512 moves and arithmetic, masks, gathers."""
    low = ((r.XMM[:16], xmmword), (r.YMM[:16], ymmword))
    for mnemonic in ["movups", "movaps", "movdqu", "movdqa", "movupd"]:
        for register, place in product(r.XMM[:16], PLACES):
            yield Case(mnemonic, (register, xmmword[place]))
            yield Case(mnemonic, (xmmword[place], register))
        for one, two in product(r.XMM[:16:3], r.XMM[:16:3]):
            yield Case(mnemonic, (one, two))
    for mnemonic, (group, size) in product(["vmovups", "vmovaps", "vmovdqu", "vmovdqa"], low):
        for register, place in product(group, (*PLACES, r.rsp + 0x200, r.r9 + 64)):
            yield Case(mnemonic, (register, size[place]))
            yield Case(mnemonic, (size[place], register))
        for one, two in product(group, group):
            yield Case(mnemonic, (one, two))
    wide = ((r.XMM, xmmword), (r.YMM, ymmword), (r.ZMM, zmmword))
    for mnemonic, (group, size) in product(("vmovdqu64", "vmovdqa32", "vmovdqu8"), wide):
        for register, steps in product(group, (0, 1, 127, -128, 128, -129)):
            yield Case(mnemonic, (register, size[r.rsp + steps * size.bits // 8]))
            yield Case(mnemonic, (size[r.r13 + steps * 4], register))
        yield Case(mnemonic, (group[1], group[30]))
        yield Case(mnemonic, (group[1], group[2]), mask=r.k3)
        yield Case(mnemonic, (group[1], size[r.rax + 64]), mask=r.k7, zeroing=True)
    for register in r.ZMM:
        yield Case("vmovups", (zmmword[r.rsp + 64 * register.number], register))
        yield Case("vpxord", (register, register, register))
        yield Case("vaddps", (register, r.zmm1, zmmword[r.rdi + 64]))
    for register in r.XMM[:16]:
        yield Case("movq", (register, r.rax))
        yield Case("movq", (r.r9, register))
        yield Case("movq", (register, qword[r.rsp + 8]))
        yield Case("movd", (register, r.r10d))
        yield Case("pxor", (register, r.xmm3))
        yield Case("addsd", (register, qword[r.rsp + 8]))
        yield Case("cvtsi2sd", (register, r.rax))
        yield Case("pinsrq", (register, r.rax, 1))
        yield Case("vpaddd", (register, r.xmm9, r.xmm2))
        yield Case("vpaddd", (register, r.xmm2, r.xmm9))
        yield Case("vandps", (register, r.xmm2, r.xmm9))
        yield Case("vextracti128", (register, r.ymm5, 1))
    for mask, place in product(r.MASKS, PLACES):
        for mnemonic, size, general in (
            ("kmovb", byte, r.ecx),
            ("kmovw", word, r.ecx),
            ("kmovd", dword, r.ecx),
            ("kmovq", qword, r.rcx),
        ):
            yield Case(mnemonic, (mask, size[place]))
            yield Case(mnemonic, (size[place], mask))
            yield Case(mnemonic, (mask, general))
            yield Case(mnemonic, (general, mask))
            yield Case(mnemonic, (mask, r.k2))
    yield Case("vpgatherdd", (r.xmm1, dword[r.rax + r.xmm2 * 4], r.xmm3))
    yield Case("vpgatherqq", (r.ymm1, qword[r.rax + r.ymm2 * 8 + 8], r.ymm3))
    yield Case("vpcmpeqb", (r.k1, r.zmm1, r.zmm17))


# The kinds of operands of `forms.Form`, with two examples each; for every form there is.
EXAMPLES: dict[str, tuple[Register | int, Register | int]] = {
    "R8": (r.dl, r.r9b),
    "R16": (r.dx, r.r9w),
    "R32": (r.edx, r.r9d),
    "R64": (r.rdx, r.r9),
    "XMM": (r.xmm2, r.xmm11),
    "YMM": (r.ymm2, r.ymm11),
    "ZMM": (r.zmm2, r.zmm21),
    "K": (r.k2, r.k5),
    "KP1": (r.k2, r.k4),
    "MM": (r.mm2, r.mm5),
    "SEG": (r.fs, r.gs),
    "STI": (r.st2, r.st5),
    "XMMP3": (r.xmm4, r.xmm8),
    "ZMMP3": (r.zmm4, r.zmm8),
    "IMM8": (7, 100),
    "IMM4": (1, 3),
    "IMM16": (0x1234, 0x4321),
    "IMM32": (0x12345678, 0x7FFFFFFF),
    "IMM8SEX16": (7, -7),
    "IMM8SEX32": (7, -7),
    "IMM8SEX64": (7, -7),
    "IMM32SEX64": (0x12345678, -0x12345678),
    "IMM64": (0x123456789ABCDEF, -(1 << 62)),
}
FIXED = {"AL": r.al, "CL": r.cl, "AX": r.ax, "DX": r.dx, "EAX": r.eax, "RAX": r.rax}
FIXED |= {"FS": r.fs, "GS": r.gs, "ST0": r.st0}
VECTOR_INDEX = {"X": (r.xmm7, r.xmm14), "Y": (r.ymm7, r.ymm14), "Z": (r.zmm7, r.zmm27)}
KIND_NAMES = {value: name for name, value in vars(OpCodeOperandKind).items() if name.isupper()}


def operand_of(form: forms.Form, kind: str, second: bool, memory: bool) -> object:
    """An operand of that kind, or None where there is none to write down."""
    size = Size(form.memory_bits if form.memory_bits in STATED_BITS else 0)
    if kind.startswith("MEM_VSIB"):
        return size[r.rcx + VECTOR_INDEX[kind[-1]][second] * 4 + 32]
    if kind in ("MEM", "SIBMEM", "MEM_MIB") or (kind.endswith("OR_MEM") and memory):
        return size[r.r14 + r.r15 * 4 + 0x1234 if second else r.rbx + 8]
    if kind == "IMM8_CONST_1":
        return 1
    if kind in FIXED:
        return FIXED[kind]
    examples = EXAMPLES.get(kind.partition("_")[0])
    return examples[second] if examples else None


def every_form() -> Iterator[Case]:
    """All encodings iced-x86 knows, each with registers and memory, low and high registers."""
    seen: set[Case] = set()
    for mnemonic in sorted(forms.mnemonics()):
        for form, second, memory in product(forms.forms(mnemonic), (False, True), (False, True)):
            kinds = [KIND_NAMES[form.kinds[n]] for n in form.written]
            operands = tuple(operand_of(form, kind, second, memory) for kind in kinds)
            if form.narrow or any(operand is None for operand in operands):
                continue
            taken = tuple(o for o in operands if isinstance(o, Register | Memory | int))
            mask = r.k1 if OpCodeInfo(form.code).require_op_mask_register else None
            if (case := Case(mnemonic, taken, mask=mask)) not in seen:
                seen.add(case)
                yield case


GROUPS = {
    "addresses": addresses,
    "arithmetic": arithmetic,
    "moves": moves,
    "atomics_and_bits": atomics_and_bits,
    "system": system,
    "vectors": vectors,
}
CASES = {name: list(group()) for name, group in GROUPS.items()} | {"every_form": list(every_form())}
