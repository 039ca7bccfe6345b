"""Memory operands: `qword[rsp + 8]`, `dword[fs, 0x2d0]`, `ptr[rdi]`.

A size indexed with an address is a `Memory`. `ptr` says no size: right for instructions whose
mnemonic tells it (xsave64, fxsave64, lea), refused where two sizes would fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from fentry.x86.registers import INT32_MAX, INT32_MIN, Address, Register, RegisterKind


@dataclass(frozen=True, slots=True)
class Memory:
    """`bits` of memory at an address, in a segment where one is given; 0 bits: not stated."""

    address: Address
    bits: int
    segment: Register | None = None

    def __repr__(self) -> str:
        a = self.address
        parts = [str(a.target)] if a.target is not None else []
        parts += [a.base.name] if a.base else []
        parts += [f"{a.index.name} * {a.scale}"] if a.index else []
        parts += [f"{a.displacement:#x}"] if a.displacement or not parts else []
        segment = f"{self.segment.name}, " if self.segment else ""
        name = next(n for n, size in SIZES.items() if size.bits == self.bits)
        return f"{name}[{segment}{' + '.join(parts)}]"


Place = Address | Register | int


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a memory operand in bits; indexing it with an address makes the operand.

    An int is an absolute address, which must fit 32 signed bits (ValueError); with a segment it
    is the offset from the segment's base.
    """

    bits: int

    def __getitem__(self, place: Place | tuple[Register, Place]) -> Memory:
        if not isinstance(place, tuple):
            return Memory(_address(place), self.bits)
        segment, inner = place
        if not isinstance(segment, Register) or segment.kind is not RegisterKind.SEGMENT:
            raise TypeError(f"{segment!r} is not a segment register")
        return Memory(_address(inner), self.bits, segment)


ptr = Size(0)
byte = Size(8)
word = Size(16)
dword = Size(32)
qword = Size(64)
tbyte = Size(80)
xmmword = Size(128)
ymmword = Size(256)
zmmword = Size(512)

SIZES = {
    "ptr": ptr,
    "byte": byte,
    "word": word,
    "dword": dword,
    "qword": qword,
    "tbyte": tbyte,
    "xmmword": xmmword,
    "ymmword": ymmword,
    "zmmword": zmmword,
}

STATED_BITS = frozenset(size.bits for size in SIZES.values() if size.bits)


def fits_i8(value: int) -> bool:
    """Whether a signed byte holds the value."""
    return -128 <= value <= 127


def fits_i32(value: int) -> bool:
    """Whether 32 signed bits hold the value."""
    return INT32_MIN <= value <= INT32_MAX


def _address(place: Place) -> Address:
    if isinstance(place, Address):
        return place
    if isinstance(place, Register):
        return Address.of(place)
    if isinstance(place, int):
        if not fits_i32(place):
            raise ValueError(f"absolute address {place:#x} does not fit 32 signed bits")
        return Address(displacement=place)
    raise TypeError(f"{place!r} is not an address")
