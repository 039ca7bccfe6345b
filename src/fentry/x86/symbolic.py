"""What is known about registers, flags and stack at a point of a program, byte by byte.

A byte is a constant (int), a symbol (tuple) or unknown (None). Symbols:

    ("rax", 0, n)       byte n of a register as at entry
    ("entry", o, 0)     the byte at entry rsp + o, as at entry (o >= 0)
    ("rflags", 0, n)    byte n of the flags as at entry, as pushfq stores them
    ("rflags", 1, n)    the same with other status flags, but all else as at entry
    ("low", 0, 0)       SF ZF AF PF CF as at entry, as lahf stores them
    ("of", 0, 0)        OF as at entry, as seto stores it; ("df", 0, 0): DF as at entry
    ("sp:" + f, o, n)   byte n of an address in the stack: offset o in frame f
    ("stack", 0, 0)     made from an address in the stack, in a way not followed

The frame "entry" counts from rsp at entry; `and rsp, -16` opens a frame of its own, because its
distance from the entry is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from iced_x86 import Register_

from fentry.x86.registers import GENERAL_8, GENERAL_16, GENERAL_32, GENERAL_64, HIGH_8

Byte = int | tuple[str, int, int] | None
Value = tuple[Byte, ...]

ENTRY = "entry"
RED_ZONE_BYTES = 128  # System V ABI 3.2.2: below rsp, kept by signal handlers

LOW_FLAGS: Byte = ("low", 0, 0)
OVERFLOW: Byte = ("of", 0, 0)
DIRECTION: Byte = ("df", 0, 0)
FLAGS_IMAGE: Value = tuple(("rflags", 0, n) for n in range(8))
STATUS_CHANGED: Value = tuple(("rflags", 1, n) for n in range(8))
STACK_DERIVED: Byte = ("stack", 0, 0)

# iced-x86's register number -> (64-bit register's name, first byte in it, bytes)
PARTS = {
    register.iced: (GENERAL_64[register.number].name, 0, size)
    for size, group in ((8, GENERAL_64), (4, GENERAL_32), (2, GENERAL_16), (1, GENERAL_8))
    for register in group
} | {register.iced: (GENERAL_64[register.number].name, 1, 1) for register in HIGH_8}


def initial(name: str) -> Value:
    """What the register holds at entry."""
    return tuple((name, 0, n) for n in range(8))


def unknown(size: int) -> Value:
    """`size` bytes of which nothing is known."""
    return (None,) * size


def constant(value: int, size: int) -> Value:
    """The number in `size` bytes."""
    return tuple((value % (1 << (8 * size))).to_bytes(size, "little"))


def as_constant(value: Value) -> int | None:
    """The unsigned number, if all bytes are known."""
    number = 0
    for n, byte in enumerate(value):
        if not isinstance(byte, int):
            return None
        number |= byte << (8 * n)
    return number


def stack_address(frame: str, offset: int) -> Value:
    """The address `offset` in a frame."""
    return tuple(("sp:" + frame, offset, n) for n in range(8))


def as_stack_address(value: Value) -> tuple[str, int] | None:
    """(frame, offset), if the value is a whole address in the stack."""
    first = value[0]
    if isinstance(first, tuple) and first[0].startswith("sp:"):
        frame, offset = first[0][3:], first[1]
        if value == stack_address(frame, offset):
            return frame, offset
    return None


def is_stack_derived(value: Value) -> bool:
    """Whether some byte comes from an address in the stack."""
    return any(isinstance(b, tuple) and (b[0] == "stack" or b[0][:3] == "sp:") for b in value)


@dataclass(slots=True)
class State:
    """Registers by 64-bit name, flags in three parts, and the known bytes of the stack.

    A byte of the stack that is not in `slots` is as at entry when it lies at or above the entry
    rsp, and unknown below.
    """

    registers: dict[str, Value]
    low_flags: Byte = LOW_FLAGS
    overflow: Byte = OVERFLOW
    direction: Byte = DIRECTION
    slots: dict[tuple[str, int], Byte] = field(default_factory=dict)

    @staticmethod
    def at_entry() -> State:
        """Everything as it is when the code is entered."""
        registers = {register.name: initial(register.name) for register in GENERAL_64}
        registers["rsp"] = stack_address(ENTRY, 0)
        return State(registers)

    def copy(self) -> State:
        """A state that changes on its own."""
        return State(
            dict(self.registers), self.low_flags, self.overflow, self.direction, dict(self.slots)
        )

    def read_register(self, iced: Register_) -> Value:
        """The bytes of a general register or a part of one."""
        name, first, size = PARTS[iced]
        return self.registers[name][first : first + size]

    def write_register(self, iced: Register_, value: Value) -> None:
        """Store; writing 32 bits clears the upper half (SDM Vol. 1, 3.4.1.1)."""
        name, first, size = PARTS[iced]
        if size == 4:
            self.registers[name] = (*value, 0, 0, 0, 0)
        else:
            old = self.registers[name]
            self.registers[name] = (*old[:first], *value, *old[first + size :])

    def read_slot(self, frame: str, offset: int, size: int) -> Value:
        """The bytes of the stack there."""
        return tuple(
            self.slots.get((frame, o), ("entry", o, 0) if frame == ENTRY and o >= 0 else None)
            for o in range(offset, offset + size)
        )

    def write_slot(self, frame: str, offset: int, value: Value) -> None:
        """Store on the stack; bytes of other frames that may lie there too are forgotten."""
        for key in [k for k in self.slots if k[0] != frame and _may_alias(frame, offset, k)]:
            del self.slots[key]
        for n, byte in enumerate(value):
            self.slots[(frame, offset + n)] = byte

    def forget_below(self, frame: str, offset: int) -> None:
        """Nothing is known any more of the frame's stack below the offset."""
        for key in [k for k in self.slots if k[0] == frame and k[1] < offset]:
            del self.slots[key]
        if frame == ENTRY:
            # What is not in `slots` there would count as untouched.
            self.slots.update({(ENTRY, o): None for o in range(offset)})

    def forget_frames_but(self, frame: str) -> None:
        """Only the entry's frame and this one are left."""
        for key in [k for k in self.slots if k[0] not in (ENTRY, frame)]:
            del self.slots[key]

    def flags_are_initial(self) -> bool:
        """Whether the status flags and DF are as at entry."""
        return (self.low_flags, self.overflow, self.direction) == (LOW_FLAGS, OVERFLOW, DIRECTION)

    def joined(self, other: State) -> State:
        """What holds in both: the state where two paths meet."""
        if self == other:
            return self
        registers = {
            name: value if value == other.registers[name] else _join(value, other.registers[name])
            for name, value in self.registers.items()
        }
        slots = dict(self.slots)
        differing = self.slots.items() ^ other.slots.items()
        for key in {key for key, _ in differing}:
            (mine,), (theirs,) = self.read_slot(*key, 1), other.read_slot(*key, 1)
            slots[key] = _join_byte(mine, theirs)
        return State(
            registers,
            _join_byte(self.low_flags, other.low_flags),
            _join_byte(self.overflow, other.overflow),
            _join_byte(self.direction, other.direction),
            slots,
        )


def aligned_frame(base: int, alignment: int) -> str:
    """The name of the frame that starts at `base` of the entry's frame, rounded down."""
    return f"{base}&{alignment}"


def base_of(frame: str) -> int | None:
    """The offset in the entry's frame that an aligned frame was rounded down from."""
    return None if frame == ENTRY else int(frame.partition("&")[0])


def lowest(frame: str, offset: int) -> int:
    """The lowest that an offset of a frame can be, counted from the entry's rsp."""
    if frame == ENTRY:
        return offset
    base, _, alignment = frame.partition("&")
    return int(base) - (int(alignment) - 1) + offset


def _may_alias(frame: str, offset: int, other: tuple[str, int]) -> bool:
    """An aligned frame's bytes lie below its base, so they may be the entry's below the base."""
    if frame == ENTRY:
        return offset < (base_of(other[0]) or 0)
    return other[0] != ENTRY or other[1] < (base_of(frame) or 0)


def _join(one: Value, two: Value) -> Value:
    return tuple(_join_byte(a, b) for a, b in zip(one, two, strict=True))


def _join_byte(one: Byte, two: Byte) -> Byte:
    if one == two:
        return one
    if isinstance(one, tuple) and isinstance(two, tuple) and one[0] == two[0] == "rflags":
        return ("rflags", 1, one[2]) if one[2] == two[2] else None
    return STACK_DERIVED if is_stack_derived((one, two)) else None
