"""An assembler whose source reads as a listing: one method call named as the mnemonic a line.

Operands are in Intel order and are objects of `registers` and `operands`; labels are strings.
Any mnemonic that iced-x86 knows is a method; where it is a word of Python, an underscore follows
(`and_`, `or_`, `not_`, `in_`). Which encoding is used is decided in `forms`.

The length of the code depends on its labels only, not on where absolute targets lie: a jump to a
label is as short as it can be, a jump to an absolute address always has a 32-bit distance.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from iced_x86 import InstructionInfoFactory, OpAccess
from iced_x86 import Register as IcedRegister

from fentry.x86 import decode, forms
from fentry.x86.code import Code
from fentry.x86.encodings import INT3, nops
from fentry.x86.operands import Memory, Size, fits_i8, fits_i32, qword
from fentry.x86.registers import Address, Register, RegisterKind, rsp

# Inside Asm the name `bytes` is a method.
_Bytes: TypeAlias = bytes

_STACK_BYTES = {"push": 8, "pushfq": 8, "pushf": 8, "pop": -8, "popfq": -8, "popf": -8}
_READS_ONLY = ("push", "cmp", "test", "bt", "jmp", "call")
_NO_SUCCESSOR = ("jmp", "ret", "int3", "ud2", "hlt", "iretq", "sysretq")


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Bytes that depend on nothing."""

    data: bytes
    comment: str
    instruction: bool


@dataclass(frozen=True, slots=True)
class _Relative:
    """An instruction with the 32-bit distance to `address` at `at`."""

    data: bytes
    at: int
    address: Address
    comment: str


@dataclass(frozen=True, slots=True)
class _Jump:
    """A direct branch to a label or an absolute address."""

    mnemonic: str
    branch: forms.Branch
    target: str | int
    comment: str


@dataclass(frozen=True, slots=True)
class _Quad:
    """The absolute address of a label, 8 bytes."""

    label: str


@dataclass(frozen=True, slots=True)
class _Distance:
    """How many bytes one label lies behind another, 8 bytes."""

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class _Align:
    """Up to the next multiple of `to`; `reached` if control may come from above."""

    to: int
    reached: bool


@dataclass(frozen=True, slots=True)
class _Label:
    name: str


@dataclass(frozen=True, slots=True)
class _Remark:
    text: str


_Item: TypeAlias = _Fixed | _Relative | _Jump | _Quad | _Distance | _Align | _Label | _Remark


class Asm:
    """Collects instructions, data and labels; `assemble` gives the bytes for an address.

    `depth` is how many bytes rsp lies below its value at the entry of this code. It follows
    push, pop, pushfq, popfq, add, sub and lea on rsp; it is None where it is not known, and may
    be set. Jumps carry it to their labels; a label reached with two depths is a ValueError.
    """

    def __init__(self) -> None:
        self.depth: int | None = 0
        self._items: list[_Item] = []
        self._defined: dict[str, int | None] = {}
        self._expected: dict[str, int] = {}
        self._reached = True

    def __getattr__(self, name: str) -> Callable[..., None]:
        mnemonic = name.rstrip("_")
        if name.startswith("_") or mnemonic not in forms.mnemonics():
            raise AttributeError(f"no such mnemonic: {name}")
        return partial(self._instruction, mnemonic)

    def label(self, name: str, *, depth: int | None = None) -> None:
        """This place is called `name`; `depth` states rsp's depth where no jump tells it.

        Raises ValueError if the name is taken or another depth comes from above or by a jump.
        """
        if name in self._defined:
            raise ValueError(f"label {name!r} is defined twice")
        depths = {depth, self._expected.get(name)}
        if self._reached:
            depths.add(self.depth)
        depths.discard(None)
        if len(depths) > 1:
            raise ValueError(f"label {name!r} is reached with depths {sorted(map(str, depths))}")
        self.depth = depths.pop() if depths else None
        self._defined[name] = self.depth
        self._reached = True
        self._items.append(_Label(name))

    def align(self, to: int) -> None:
        """Go on at a multiple of `to`, a power of two: over NOPs, or int3 if nothing gets there."""
        if to < 1 or to & (to - 1):
            raise ValueError(f"alignment {to} is not a power of two")
        self._items.append(_Align(to, self._reached))

    def quad(self, value: int | str) -> None:
        """8 bytes of data: a number, or the absolute address of a label."""
        if isinstance(value, str):
            self._items.append(_Quad(value))
        else:
            self.bytes(_little(value, 8))

    def distance(self, start: str, end: str) -> None:
        """8 bytes of data: how far the label `end` lies behind the label `start`."""
        self._items.append(_Distance(start, end))

    def long(self, value: int) -> None:
        """4 bytes of data."""
        self.bytes(_little(value, 4))

    def bytes(self, data: _Bytes) -> None:
        """Data as it is; it is listed as data and not decoded."""
        self._items.append(_Fixed(bytes(data), "", instruction=False))

    def code(self, data: _Bytes, comment: str = "") -> None:
        """Whole instructions already encoded, for instance moved from a function.

        Raises ValueError if they do not decode. `depth` follows them as far as it can.
        """
        for instruction in decode.instructions(data, 0):
            if decode.is_branch(instruction):
                self._reached = decode.falls_through(instruction)
                continue
            written = any(
                used.register == IcedRegister.RSP and used.access != OpAccess.READ
                for used in _INFO.info(instruction).used_registers()
            )
            change = -instruction.stack_pointer_increment
            self._sink(None if written and not change else change)
            self._reached = decode.falls_through(instruction)
        self._items.append(_Fixed(bytes(data), comment, instruction=True))

    def comment(self, text: str) -> None:
        """A line of its own in the listing, before what comes next."""
        self._items.append(_Remark(text))

    def entry(self, offset: int, size: Size = qword) -> Memory:
        """The memory `offset` bytes above rsp at the entry of this code, a qword if not stated.

        Raises ValueError where the depth of rsp is not known.
        """
        if self.depth is None:
            raise ValueError("rsp's depth below the entry is not known here")
        return size[rsp + (self.depth + offset)]

    def assemble(self, origin: int) -> Code:
        """The code for an address; may be called again for other addresses.

        Raises ValueError for labels that are not defined and distances that do not fit.
        """
        return _Assembly(origin, self._items).code()

    def _instruction(
        self,
        mnemonic: str,
        *operands: Any,
        comment: str = "",
        lock: bool = False,
        rep: bool = False,
        repne: bool = False,
        mask: Register | None = None,
        zeroing: bool = False,
    ) -> None:
        jump = forms.branch(mnemonic) if operands else None
        if jump is not None and isinstance(operands[0], str | int):
            self._jump(_Jump(mnemonic, jump, operands[0], comment), len(operands))
            return
        taken = tuple(_operand(mnemonic, operand) for operand in operands)
        data, at = forms.encode(
            mnemonic, taken, lock=lock, rep=rep, repne=repne, mask=mask, zeroing=zeroing
        )
        if at is None:
            self._items.append(_Fixed(data, comment, instruction=True))
        else:
            place = next(operand for operand in taken if isinstance(operand, Memory))
            self._items.append(_Relative(data, at, place.address, comment))
        self._reached = mnemonic not in _NO_SUCCESSOR
        self._sink(_sinks(mnemonic, taken))

    def _jump(self, jump: _Jump, operand_count: int) -> None:
        if operand_count != 1:
            raise TypeError(f"{jump.mnemonic} takes one target, not {operand_count} operands")
        if isinstance(jump.target, str) and jump.mnemonic != "call":
            self._expect(jump.target)
        self._items.append(jump)
        self._reached = jump.mnemonic not in _NO_SUCCESSOR

    def _expect(self, label: str) -> None:
        if self.depth is None:
            return
        known = self._defined.get(label, self._expected.get(label))
        if known is not None and known != self.depth:
            raise ValueError(f"label {label!r} has depth {known}, jumped to with {self.depth}")
        self._expected[label] = self.depth

    def _sink(self, change: int | None) -> None:
        if change is None or self.depth is None:
            self.depth = None
        else:
            self.depth += change


@dataclass(slots=True)
class _Assembly:
    """One placing of items at an address; jumps grow from short to near until all fit."""

    origin: int
    items: Iterable[_Item]
    near: set[int] = field(default_factory=set)
    offsets: list[int] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def code(self) -> Code:
        items = list(self.items)
        for position, item in enumerate(items):
            if isinstance(item, _Jump) and (isinstance(item.target, int) or not item.branch.short):
                self.near.add(position)
        while True:
            self._place(items)
            grown = {n for n, item in enumerate(items) if self._must_grow(n, item)}
            if not grown:
                break
            self.near |= grown
        return self._emit(items)

    def _place(self, items: list[_Item]) -> None:
        offset = 0
        self.offsets = []
        self.labels = {}
        for position, item in enumerate(items):
            self.offsets.append(offset)
            if isinstance(item, _Label):
                self.labels[item.name] = self.origin + offset
            else:
                offset += self._size(position, item, offset)

    def _size(self, position: int, item: _Item, offset: int) -> int:
        match item:
            case _Fixed() | _Relative():
                return len(item.data)
            case _Jump():
                return len(_prefix(item, position in self.near)[0]) + (
                    4 if position in self.near and item.branch.near else 1
                )
            case _Quad() | _Distance():
                return 8
            case _Align():
                return -(self.origin + offset) % item.to
            case _:
                return 0

    def _must_grow(self, position: int, item: _Item) -> bool:
        if not isinstance(item, _Jump) or position in self.near or not item.branch.near:
            return False
        end = self.origin + self.offsets[position] + self._size(position, item, 0)
        return not fits_i8(self._address(item.target) - end)

    def _emit(self, items: list[_Item]) -> Code:
        data = bytearray()
        spans: list[tuple[int, int]] = []
        remarks: dict[int, tuple[str, ...]] = {}
        comments: dict[int, str] = {}
        pointers: list[int] = []
        for position, item in enumerate(items):
            start = len(data)
            data += self._bytes(position, item)
            if isinstance(item, _Quad):
                pointers.append(start)
            match item:
                case _Remark(text):
                    remarks[start] = (*remarks.get(start, ()), text)
                case _Fixed(instruction=False) | _Quad() | _Distance():
                    spans.append((start, len(data)))
                case _Fixed() | _Relative() | _Jump():
                    if item.comment:
                        comments[start] = item.comment
        return Code(
            self.origin,
            bytes(data),
            self.labels,
            tuple(spans),
            remarks,
            comments,
            None if any(map(_is_anchored, items)) else tuple(pointers),
            max((item.to for item in items if isinstance(item, _Align)), default=1),
        )

    def _bytes(self, position: int, item: _Item) -> bytes:
        match item:
            case _Fixed(data):
                return data
            case _Relative(data, at, address):
                assert address.target is not None
                target = self._address(address.target) + address.displacement
                ip = self.origin + self.offsets[position]
                distance = _distance(ip, target, ip + len(data), 4, "rip-relative operand")
                return data[:at] + distance + data[at + 4 :]
            case _Jump():
                return self._jump_bytes(position, item)
            case _Quad(label):
                return _little(self._address(label), 8)
            case _Distance(start, end):
                return _little(self._address(end) - self._address(start), 8)
            case _Align(reached=reached):
                size = self._size(position, item, self.offsets[position])
                return nops(size) if reached else INT3 * size
            case _:
                return b""

    def _jump_bytes(self, position: int, jump: _Jump) -> bytes:
        prefix, size = _prefix(jump, position in self.near)
        ip = self.origin + self.offsets[position]
        end = ip + len(prefix) + size
        return prefix + _distance(ip, self._address(jump.target), end, size, jump.mnemonic)

    def _address(self, target: str | int) -> int:
        if isinstance(target, int):
            return target
        if target not in self.labels:
            raise ValueError(f"label {target!r} is not defined")
        return self.labels[target]


_INFO = InstructionInfoFactory()


def _is_anchored(item: _Item) -> bool:
    """Whether the bytes of an item hold the distance to an address that does not move along."""
    match item:
        case _Jump(target=int()):
            return True
        case _Relative(address=address):
            return isinstance(address.target, int)
        case _:
            return False


def _prefix(jump: _Jump, near: bool) -> tuple[bytes, int]:
    """The bytes before the distance, and the size of the distance."""
    if near and jump.branch.near is not None:
        return jump.branch.near, 4
    assert jump.branch.short is not None
    return jump.branch.short, 1


def _distance(ip: int, target: int, end: int, size: int, what: str) -> bytes:
    distance = target - end
    if not (fits_i8(distance) if size == 1 else fits_i32(distance)):
        raise ValueError(f"{what} at {ip:#x}: {target:#x} is out of reach of {8 * size} bits")
    return distance.to_bytes(size, "little", signed=True)


def _little(value: int, size: int) -> bytes:
    if not -(1 << (8 * size - 1)) <= value < 1 << (8 * size):
        raise ValueError(f"{value:#x} does not fit {size} bytes")
    return (value % (1 << (8 * size))).to_bytes(size, "little")


def _operand(mnemonic: str, operand: object) -> forms.Operand:
    if isinstance(operand, Register | Memory | int):
        return operand
    if isinstance(operand, Address):
        return Memory(operand, 0)
    if hasattr(operand, "__index__"):
        return operator.index(operand)
    raise TypeError(f"{mnemonic}: {operand!r} is neither register, memory nor number")


def _sinks(mnemonic: str, operands: tuple[forms.Operand, ...]) -> int | None:
    """By how many bytes an instruction lowers rsp; None if that cannot be told."""
    first = operands[0] if operands else None
    if mnemonic in _STACK_BYTES and not (mnemonic == "pop" and first is rsp):
        narrow = isinstance(first, Register | Memory) and first.bits == 16
        if isinstance(first, Register) and first.kind is RegisterKind.SEGMENT:
            narrow = False
        return _STACK_BYTES[mnemonic] // (4 if narrow else 1)
    if mnemonic in ("leave", "enter"):
        return None
    if mnemonic == "ret" or mnemonic in _READS_ONLY:
        return 0
    if not any(_is_stack_pointer(o) for o in (operands if mnemonic == "xchg" else operands[:1])):
        return 0
    match mnemonic, operands:
        case "sub", (_, int(count)):
            return count
        case "add", (_, int(count)):
            return -count
        case "lea", (_, Memory(Address(base=base, index=None, target=None) as place)):
            return -place.displacement if base is rsp and first is rsp else None
        case _:
            return None


def _is_stack_pointer(operand: forms.Operand) -> bool:
    return (
        isinstance(operand, Register)
        and operand.kind is RegisterKind.GENERAL
        and operand.number == rsp.number
    )
