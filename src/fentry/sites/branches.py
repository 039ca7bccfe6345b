"""Who jumps where in an image: every direct branch into given bytes, and every computed jump.

Two steps, so that it is both sound and fast. First a superset: each byte of code is taken as if
an instruction started there, and what would then be a branch (or a lea that makes an address)
into the wanted bytes is a candidate. Then each candidate is confirmed or dismissed by decoding
the function it lies in; where that decode cannot be trusted the candidate counts.

The decode goes in line from the function's start and then again from each branch target that is
no instruction boundary yet (behind data in text, or behind a lock prefix that is jumped over), so
it has every instruction that direct flow reaches. It is trusted if all of it is valid.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from iced_x86 import Decoder, FlowControl, Instruction, Mnemonic, OpKind
from numpy.typing import NDArray

from fentry.symbols.elf import ElfImage
from fentry.symbols.elf_file import ET_EXEC

_REL8 = np.zeros(256, bool)
_REL8[[*range(0x70, 0x80), 0xEB, 0xE0, 0xE1, 0xE2, 0xE3]] = True
# One-byte opcodes that may start a form with rel32; the second byte decides (SDM Vol. 2, A.3).
_REL32 = np.zeros(256, bool)
_REL32[[0xE8, 0xE9, 0x0F, 0x8D, 0xC7]] = True
_LEA = 0x8D
# What rel32 spans: code of one file that lies further apart could not branch to itself.
_MOST_CODE_BYTES = 1 << 32
_BRANCHES = frozenset(
    (
        FlowControl.CONDITIONAL_BRANCH,
        FlowControl.UNCONDITIONAL_BRANCH,
        FlowControl.CALL,
        FlowControl.XBEGIN_XABORT_XEND,
    )
)

_NEXT, _COMPUTED = FlowControl.NEXT, FlowControl.INDIRECT_BRANCH
_EXCEPTION, _MNEMONIC_LEA = FlowControl.EXCEPTION, Mnemonic.LEA
_IMMEDIATES = frozenset((OpKind.IMMEDIATE32, OpKind.IMMEDIATE64, OpKind.IMMEDIATE32TO64))


@dataclass(frozen=True, slots=True)
class Candidates:
    """Possible branches, equally long: vaddr of the opcode, its first byte, where it would go."""

    source: NDArray[np.int64]
    opcode: NDArray[np.uint8]
    target: NDArray[np.int64]

    def only(self, which: NDArray[np.bool_]) -> Candidates:
        """Those of `which`: bool[n]."""
        return Candidates(self.source[which], self.opcode[which], self.target[which])


@dataclass(frozen=True, slots=True)
class Flow:
    """A linear decode of one function; addresses are vaddrs.

    `targets`: where its direct branches and the lea's of its code go -> (start, end) of each that
    goes there.
    `trusted`: see the module. `jumps`: numbers of computed jumps in `instructions`.
    """

    start: int
    size: int
    instructions: list[Instruction]
    targets: dict[int, list[tuple[int, int]]]
    jumps: list[int]
    trusted: bool


class Branches:
    """The branches of one image; decodes are kept, a function is decoded at most once."""

    def __init__(self, image: ElfImage) -> None:
        self._image = image
        self._flows: dict[int, Flow] = {}
        self.low = min((s.vaddr for s in image.executable), default=0)
        self.high = max((s.vaddr + s.file_size for s in image.executable), default=0)
        if self.high - self.low > _MOST_CODE_BYTES:
            raise image.damaged("program headers", 64, "code too far apart for its own branches")

    def blank(self) -> NDArray[np.bool_]:
        """A bool for each byte from the first to the last of code, all False."""
        return np.zeros(self.high - self.low, bool)

    def candidates_into(self, wanted: NDArray[np.bool_]) -> Candidates:
        """The superset: everything that could be a branch to a byte marked in a blank()."""
        found = [self._select(wanted, *pair) for pair in self._every]
        return Candidates(
            np.concatenate([f[0] for f in found]),
            np.concatenate([f[1] for f in found]),
            np.concatenate([f[2] for f in found]),
        )

    def confirmed(self, candidates: Candidates) -> Iterator[tuple[int, int]]:
        """The (source, target) of those candidates that are branches, or cannot be dismissed."""
        functions = self._image.functions
        columns = zip(candidates.source.tolist(), candidates.target.tolist(), strict=True)
        for source, target in columns:
            row = functions.containing(source)
            if row < 0:
                yield source, target
                continue
            flow = self.flow(row)
            if not flow.trusted:
                yield source, target
            else:
                for ip, end in flow.targets.get(target, ()):
                    if ip <= source < end:  # not another instruction that leads there as well
                        yield ip, target

    def flow(self, row: int) -> Flow:
        """The decode of function number `row`."""
        if row not in self._flows:
            functions = self._image.functions
            start, size = int(functions.rows["vaddr"][row]), int(functions.rows["size"][row])
            self._flows[row] = _decode(self._image.read(start, size), start, size)
        return self._flows[row]

    def computed_jump_rows(self) -> list[int]:
        """Functions with bytes that look like a jump to a register or through the stack, sorted.

        What a jump through other memory loads is a pointer, and all of those are checked.
        """
        functions = self._image.functions
        rows: set[int] = set()
        for start, code in self._codes:
            modrm, sib = code[1:-1], code[2:]
            jumps = (modrm & 0xF8 == 0xE0) | (modrm == 0x65) | (modrm == 0xA5)
            jumps |= (modrm & 0x3F == 0x24) & (modrm < 0xC0) & (sib & 7 == 4)
            at = np.flatnonzero((code[:-2] == 0xFF) & jumps)
            rows.update(functions.containing(start + position) for position in at.tolist())
        return sorted(rows - {-1})

    def anchor_after(self, vaddr: int) -> int:
        """The next address above `vaddr` where something else begins; 2**47 if nothing does.

        That is a section, a segment, or what a confirmed lea makes the address of.
        """
        headers = [section.vaddr for section in self._image.sections]
        headers += [segment.vaddr for segment in self._image.segments]
        limit = min((start for start in headers if start > vaddr), default=1 << 47)
        targets, sources = self._leas
        for number in range(int(np.searchsorted(targets, vaddr, "right")), len(targets)):
            row = self._image.functions.containing(int(sources[number]))
            if row >= 0 and int(targets[number]) in self.flow(row).targets:
                return min(limit, int(targets[number]))
        return limit

    def words_naming(self, wanted: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
        """(vaddr, target) where instructions, or data between them, hold a wanted address.

        Only in images at fixed addresses: others cannot hold absolute addresses unrelocated.
        Again a superset, the four bytes at every offset, of which each is confirmed or dismissed.
        """
        if self._image.type != ET_EXEC:
            return
        for start, code in self._codes:
            words = np.ndarray(len(code) - 3, "<u4", code, strides=(1,))
            at = np.flatnonzero((words >= self.low) & (words < self.high))
            at = at[wanted[words[at].astype(np.int64) - self.low]]
            found: dict[int, list[tuple[int, int]]] = {}
            for source, word in zip((at + start).tolist(), words[at].tolist(), strict=True):
                found.setdefault(self._image.functions.containing(source), []).append(
                    (source, word)
                )
            for row, pairs in found.items():
                yield from pairs if row < 0 else _held(self.flow(row), pairs)

    @cached_property
    def _codes(self) -> list[tuple[int, NDArray[np.uint8]]]:
        """(vaddr, bytes) of each executable segment."""
        pairs = [(s.vaddr, self._image.tail(s.vaddr)) for s in self._image.executable]
        return [(vaddr, code) for vaddr, code in pairs if len(code) > 6]

    @cached_property
    def _every(self) -> list[tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]]:
        """(source, first opcode byte, target) of what every byte of code could be."""
        none = np.zeros(0, np.int64)
        found = [(none, np.zeros(0, np.uint8), none)]
        for start, code in self._codes:
            at = np.flatnonzero(_REL8[code[:-1]])
            target = at + 2 + code[at + 1].view(np.int8)
            found.append((at + start, code[at], target + start))
            words = np.ndarray(len(code) - 3, "<i4", code, strides=(1,))  # at every byte
            at = np.flatnonzero(_REL32[code[:-6]])
            first, second = code[at], code[at + 1]
            far = (first == 0x0F) & (second & 0xF0 == 0x80)  # jcc
            far |= (first == 0x8D) & (second & 0xC7 == 0x05)  # lea reg, [rip+disp32]
            far |= (first == 0xC7) & (second == 0xF8)  # xbegin
            near = (first == 0xE8) | (first == 0xE9)
            for chosen, skip in ((at[near], 1), (at[far], 2)):
                target = chosen + skip + 4 + words[chosen + skip].astype(np.int64)
                found.append((chosen + start, code[chosen], target + start))
        return found

    @cached_property
    def _leas(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(target, source) of every possible lea, sorted by target."""
        kept = [(t[o == _LEA], s[o == _LEA]) for s, o, t in self._every]
        targets = np.concatenate([pair[0] for pair in kept])
        sources = np.concatenate([pair[1] for pair in kept])
        order = np.argsort(targets, kind="stable")
        return targets[order], sources[order]

    def _select(
        self,
        wanted: NDArray[np.bool_],
        source: NDArray[np.int64],
        opcode: NDArray[np.uint8],
        target: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
        inside = np.flatnonzero((target >= self.low) & (target < self.high))
        hit = inside[wanted[target[inside] - self.low]]
        return source[hit], opcode[hit], target[hit]


def _held(flow: Flow, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of (source, word), sorted by source, those that an instruction around the source has as
    immediate or displacement, or that cannot be dismissed."""
    if not flow.trusted:
        return pairs
    sources = [source for source, _ in pairs]
    found = set()
    for instruction in flow.instructions:
        ip, end = instruction.ip, instruction.next_ip
        for number in range(bisect_left(sources, ip), bisect_left(sources, end)):
            word = pairs[number][1]
            if word == instruction.memory_displacement or any(
                instruction.op_kind(operand) in _IMMEDIATES
                and instruction.immediate(operand) == word
                for operand in range(instruction.op_count)
            ):
                found.add(number)
    return [pairs[number] for number in sorted(found)]


def _decode(code: bytes, start: int, size: int) -> Flow:
    """The instructions in line from `start`, and from each branch target between two of them."""
    instructions = list(Decoder(64, code, ip=start))
    boundaries = {instruction.ip for instruction in instructions}
    targets: dict[int, list[tuple[int, int]]] = {}
    jumps: list[int] = []
    valid = len(code) == size and bool(instructions)
    position = 0
    while position < len(instructions):
        inner, good = _scan(instructions, position, targets, jumps)
        valid = valid and good
        position = len(instructions)
        for target in inner:
            if start <= target < start + size and target not in boundaries:
                more = _until_boundary(code[target - start :], target, boundaries)
                boundaries.update(instruction.ip for instruction in more)
                instructions.extend(more)
    return Flow(start, size, instructions, targets, jumps, valid)


def _scan(
    instructions: list[Instruction],
    position: int,
    targets: dict[int, list[tuple[int, int]]],
    jumps: list[int],
) -> tuple[list[int], bool]:
    """Adds what instructions[position:] reach; their branch targets, and if all are valid."""
    inner = []
    valid = True
    for number in range(position, len(instructions)):
        instruction = instructions[number]
        flow = instruction.flow_control
        if flow == _NEXT:
            if instruction.mnemonic == _MNEMONIC_LEA and instruction.is_ip_rel_memory_operand:
                place = instruction.ip_rel_memory_address
                targets.setdefault(place, []).append((instruction.ip, instruction.next_ip))
        elif flow in _BRANCHES:
            target = instruction.near_branch_target
            targets.setdefault(target, []).append((instruction.ip, instruction.next_ip))
            inner.append(target)
        elif flow == _COMPUTED:
            jumps.append(number)
        elif flow == _EXCEPTION and instruction.is_invalid:
            valid = False
    return inner, valid


def _until_boundary(code: bytes, ip: int, boundaries: set[int]) -> list[Instruction]:
    more: list[Instruction] = []
    for instruction in Decoder(64, code, ip=ip):
        if instruction.ip in boundaries:
            break
        more.append(instruction)
    return more
