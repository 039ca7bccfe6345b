"""The registers as objects, and arithmetic on them that yields addresses.

`rsp + 8`, `rdx + rdi * 8 - 4` and `rip("label")` are `Address` values; `operands` turns them into
memory operands. Numbers are the hardware's (Intel SDM Vol. 2, 2.1.5 and table 3-1); the sets of
argument, caller-saved and callee-saved registers are from the System V ABI for x86-64, 3.2.1.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from iced_x86 import Register as IcedRegister
from iced_x86 import Register_ as IcedNumber

INT32_MIN = -(1 << 31)
INT32_MAX = (1 << 31) - 1


class RegisterKind(enum.Enum):
    """Which register file a register belongs to."""

    GENERAL = "general"
    SEGMENT = "segment"
    VECTOR = "vector"
    MASK = "mask"
    MMX = "mmx"
    X87 = "x87"


@dataclass(frozen=True, slots=True, eq=False)
class Register:
    """One register name; registers are compared by identity, each name exists once.

    `number` is the hardware number within its kind, `bits` its width, `iced` its number in
    iced-x86. `ah`, `bh`, `ch`, `dh` have the number of the register they are a part of.
    """

    name: str
    number: int
    bits: int
    kind: RegisterKind
    iced: IcedNumber

    def __add__(self, other: Register | Address | int) -> Address:
        return Address.of(self) + other

    def __radd__(self, other: int) -> Address:
        return Address.of(self) + other

    def __sub__(self, other: int) -> Address:
        return Address.of(self) - other

    def __mul__(self, scale: int) -> Address:
        if scale not in (1, 2, 4, 8):
            raise ValueError(f"scale of {self.name} must be 1, 2, 4 or 8, not {scale}")
        return Address.of(self, scale=scale)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Address:
    """base + index * scale + displacement, or `target` + displacement relative to rip.

    `target` is a label or an absolute address; the displacement is signed, 32 bits. Raises
    TypeError for registers that cannot form an address and ValueError for values out of range.
    """

    base: Register | None = None
    index: Register | None = None
    scale: int = 1
    displacement: int = 0
    target: str | int | None = None

    def __post_init__(self) -> None:
        if not INT32_MIN <= self.displacement <= INT32_MAX:
            raise ValueError(f"displacement {self.displacement:#x} does not fit 32 signed bits")
        if self.index is not None and self.index.name == "rsp":
            raise ValueError("rsp cannot be an index register")

    @staticmethod
    def of(register: Register, scale: int | None = None) -> Address:
        """The address held in a register, as an index where a scale is given."""
        if register.kind is RegisterKind.VECTOR:
            return Address(index=register, scale=scale or 1)
        if register.kind is not RegisterKind.GENERAL or register.bits != 64:
            raise TypeError(f"{register.name} cannot be part of an address: 64-bit registers only")
        if scale is None or scale == 1:
            return Address(base=register)
        return Address(index=register, scale=scale)

    def __add__(self, other: Register | Address | int) -> Address:
        if isinstance(other, int):
            return replace(self, displacement=self.displacement + other)
        if isinstance(other, Register):
            other = Address.of(other)
        if not isinstance(other, Address):
            return NotImplemented
        return _sum(self, other)

    __radd__ = __add__

    def __sub__(self, other: int) -> Address:
        return self + -other


def _sum(left: Address, right: Address) -> Address:
    if left.target is not None or right.target is not None:
        raise TypeError("a rip-relative address takes no registers")
    bases = [a.base for a in (left, right) if a.base is not None]
    indices = [(a.index, a.scale) for a in (left, right) if a.index is not None]
    if len(bases) == 2 and not indices:
        # Of two plain registers the second is the index; rsp can only be the base.
        second = bases.pop(0) if bases[1].name == "rsp" else bases.pop()
        indices.append((second, 1))
    if len(bases) > 1 or len(indices) > 1:
        raise TypeError("an address has at most one base and one index register")
    index, scale = indices[0] if indices else (None, 1)
    return Address(
        base=bases[0] if bases else None,
        index=index,
        scale=scale,
        displacement=left.displacement + right.displacement,
    )


class Rip:
    """The instruction pointer: `rip("label")` and `rip(0x401000)` are rip-relative addresses."""

    def __call__(self, target: str | int) -> Address:
        if not isinstance(target, str | int):
            raise TypeError(f"rip takes a label or an absolute address, not {target!r}")
        return Address(target=target)

    def __repr__(self) -> str:
        return "rip"


rip = Rip()

# Filled below; from a register's name, in capitals or not, to the object.
_BY_NAME: dict[str, Register] = {}


def _define(kind: RegisterKind, bits: int, names: str) -> tuple[Register, ...]:
    made = []
    for number, name in enumerate(names.split()):
        made.append(Register(name, number, bits, kind, getattr(IcedRegister, name.upper())))
        _BY_NAME[name] = made[-1]
    return tuple(made)


def _numbered(prefix: str, count: int) -> str:
    return " ".join(f"{prefix}{n}" for n in range(count))


# fmt: off
GENERAL_64 = _define(
    RegisterKind.GENERAL, 64,
    "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15",
)
rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 = GENERAL_64

GENERAL_32 = _define(
    RegisterKind.GENERAL, 32,
    "eax ecx edx ebx esp ebp esi edi r8d r9d r10d r11d r12d r13d r14d r15d",
)
eax, ecx, edx, ebx, esp, ebp, esi, edi, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d = GENERAL_32

GENERAL_16 = _define(
    RegisterKind.GENERAL, 16,
    "ax cx dx bx sp bp si di r8w r9w r10w r11w r12w r13w r14w r15w",
)
ax, cx, dx, bx, sp, bp, si, di, r8w, r9w, r10w, r11w, r12w, r13w, r14w, r15w = GENERAL_16

# iced-x86 calls r8b..r15b R8L..R15L; GNU as and the manuals' later editions call them r8b.
GENERAL_8 = (
    *_define(RegisterKind.GENERAL, 8, "al cl dl bl spl bpl sil dil"),
    *(Register(f"r{n}b", n, 8, RegisterKind.GENERAL, getattr(IcedRegister, f"R{n}L"))
      for n in range(8, 16)),
)
_BY_NAME.update((register.name, register) for register in GENERAL_8)
al, cl, dl, bl, spl, bpl, sil, dil, r8b, r9b, r10b, r11b, r12b, r13b, r14b, r15b = GENERAL_8

HIGH_8 = (
    Register("ah", 0, 8, RegisterKind.GENERAL, IcedRegister.AH),
    Register("ch", 1, 8, RegisterKind.GENERAL, IcedRegister.CH),
    Register("dh", 2, 8, RegisterKind.GENERAL, IcedRegister.DH),
    Register("bh", 3, 8, RegisterKind.GENERAL, IcedRegister.BH),
)
_BY_NAME.update((register.name, register) for register in HIGH_8)
ah, ch, dh, bh = HIGH_8

SEGMENTS = _define(RegisterKind.SEGMENT, 16, "es cs ss ds fs gs")
es, cs, ss, ds, fs, gs = SEGMENTS

XMM = _define(RegisterKind.VECTOR, 128, _numbered("xmm", 32))
(xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14,
 xmm15, xmm16, xmm17, xmm18, xmm19, xmm20, xmm21, xmm22, xmm23, xmm24, xmm25, xmm26, xmm27, xmm28,
 xmm29, xmm30, xmm31) = XMM

YMM = _define(RegisterKind.VECTOR, 256, _numbered("ymm", 32))
(ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14,
 ymm15, ymm16, ymm17, ymm18, ymm19, ymm20, ymm21, ymm22, ymm23, ymm24, ymm25, ymm26, ymm27, ymm28,
 ymm29, ymm30, ymm31) = YMM

ZMM = _define(RegisterKind.VECTOR, 512, _numbered("zmm", 32))
(zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14,
 zmm15, zmm16, zmm17, zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28,
 zmm29, zmm30, zmm31) = ZMM

MASKS = _define(RegisterKind.MASK, 64, _numbered("k", 8))
k0, k1, k2, k3, k4, k5, k6, k7 = MASKS

MMX = _define(RegisterKind.MMX, 64, _numbered("mm", 8))
mm0, mm1, mm2, mm3, mm4, mm5, mm6, mm7 = MMX

X87 = _define(RegisterKind.X87, 80, _numbered("st", 8))
st0, st1, st2, st3, st4, st5, st6, st7 = X87
# fmt: on

ARGUMENTS = (rdi, rsi, rdx, rcx, r8, r9)
CALLER_SAVED = (rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11)
CALLEE_SAVED = (rbx, rbp, r12, r13, r14, r15)


def register(name: str) -> Register:
    """The register of that name, in the spelling of GNU as; raises KeyError if there is none."""
    return _BY_NAME[name]
