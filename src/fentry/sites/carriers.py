"""Carriers: code that makes room for the long jump of a short site where no padding is near.

Ten bytes or more of whole instructions inside some other function are moved to a pad and two jumps
stand in their place: one to the moved instructions, and behind it, which nothing runs into any
more, the long jump of the short site. Whoever runs the carrier does what it did before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from iced_x86 import FlowControl, Instruction, Mnemonic, OpKind, Register
from numpy.typing import NDArray

from fentry.sites.branches import Branches, Flow
from fentry.sites.prologue import LONGEST_WINDOW, prologue_window
from fentry.sites.site import (
    FARTHEST_AHEAD,
    FARTHEST_BACK,
    PAGE_SIZE,
    PATCH_SIZE,
    SHORT_SIZE,
    Reason,
)
from fentry.symbols.elf import ElfImage
from fentry.x86.relocate import ends_flow

CARRIER_SIZE = 2 * PATCH_SIZE
_LEA = 0x8D
_POSSIBLE = (Reason.NONE, Reason.BRANCH, Reason.POINTER, Reason.TOO_SHORT)
_POSSIBLE_PARTS = (*_POSSIBLE, Reason.CALL, Reason.NOT_MOVABLE, Reason.PAGE)
_LONGEST_INSTRUCTION = 15
_MOST_NESTED = 16  # functions that lie within each other
_TRAPS = (FlowControl.EXCEPTION, FlowControl.INTERRUPT)
_STRING_OPERANDS = (
    OpKind.MEMORY_SEG_SI, OpKind.MEMORY_SEG_ESI, OpKind.MEMORY_SEG_RSI, OpKind.MEMORY_SEG_DI,
    OpKind.MEMORY_SEG_EDI, OpKind.MEMORY_SEG_RDI, OpKind.MEMORY_ESDI, OpKind.MEMORY_ESEDI,
    OpKind.MEMORY_ESRDI,
)  # fmt: skip
_JUMPS = (FlowControl.CONDITIONAL_BRANCH, FlowControl.UNCONDITIONAL_BRANCH)


@dataclass(frozen=True, slots=True)
class Carrier:
    """`window` bytes of whole instructions at `vaddr`; the long jump lies five bytes on."""

    vaddr: int
    window: int

    @property
    def hole(self) -> int:
        """Where the long jump lies."""
        return self.vaddr + PATCH_SIZE

    @property
    def inside(self) -> range:
        """The addresses that nothing may enter."""
        return range(self.vaddr + 1, self.vaddr + self.window)


class Carriers:
    """The carriers of an image that are still free.

    `eligible`: bool[n], the functions whose instructions may be moved. `taken`: a
    Branches.blank() with the bytes that are replaced already.
    """

    def __init__(
        self,
        image: ElfImage,
        branches: Branches,
        eligible: NDArray[np.bool_],
        taken: NDArray[np.bool_],
    ) -> None:
        self._image = image
        self._branches = branches
        self._eligible = eligible
        self._taken = taken

    def near(self, patch: int) -> list[Carrier]:
        """Free carriers in reach of a short jump at `patch`, nearest first."""
        low, high = _reach(patch)
        found = [
            carrier
            for row in _rows_near(self._image, patch)
            if self._eligible[row]
            for carrier in self._in_function(row, low, high)
        ]
        return sorted(found, key=lambda carrier: abs(carrier.hole - patch))

    def is_free(self, carrier: Carrier) -> bool:
        """Whether none of its bytes is replaced for another."""
        first = carrier.vaddr - self._branches.low
        return not self._taken[first : first + carrier.window].any()

    def take(self, carrier: Carrier) -> None:
        """The bytes of a carrier are used from now on."""
        first = carrier.vaddr - self._branches.low
        self._taken[first : first + carrier.window] = True

    def _in_function(self, row: int, low: int, high: int) -> Iterator[Carrier]:
        flow = self._branches.flow(row)
        end = flow.start + flow.size
        reached = _reached(flow)
        for vaddr in sorted(reached):
            hole = vaddr + PATCH_SIZE
            if not low <= hole <= high or _crosses(vaddr) or _crosses(hole):
                continue
            code = self._image.read(vaddr, min(LONGEST_WINDOW + _LONGEST_INSTRUCTION, end - vaddr))
            found = prologue_window(code, vaddr, end - vaddr, CARRIER_SIZE)
            carrier = Carrier(vaddr, found.size)
            whole = found.size >= CARRIER_SIZE and _is_whole(flow, carrier, reached)
            if whole and self.is_free(carrier):
                yield carrier


def eligible(
    image: ElfImage,
    branches: Branches,
    reasons: NDArray[np.uint8],
    parts: NDArray[np.bool_],
    patches: list[int],
) -> NDArray[np.bool_]:
    """Which functions near the patches may have instructions moved from their middle: bool[n].

    They are described by one frame without landing pads; nothing in data or code names their
    insides; no computed jumps, of their own or of those whose parts they are. `reasons`: Reason of
    each function; `parts`: which are parts of others.
    """
    functions = image.functions
    chosen = np.zeros(len(reasons), bool)
    for row in sorted({row for patch in patches for row in _rows_near(image, patch)}):
        chosen[row] = (
            reasons[row] in (_POSSIBLE_PARTS if parts[row] else _POSSIBLE)
            and _has_plain_frame(image, row)
            and _may_carry(branches.flow(row))
            and not _is_named(image, row)
        )
    wanted = branches.blank()
    for row in np.flatnonzero(chosen).tolist():
        flow = branches.flow(row)
        start = flow.start - branches.low
        wanted[start + (not parts[row]) : start + flow.size] = True
    found = branches.candidates_into(wanted)
    made = found.opcode == _LEA
    for _, target in branches.confirmed(found.only(made)):
        chosen[functions.containing(target)] = False
    owners: dict[int, set[int]] = {}
    at = np.searchsorted(functions.rows["vaddr"], found.target.astype(np.uint64), "right") - 1
    for source, target in branches.confirmed(found.only(~made & parts[np.maximum(at, 0)])):
        owners.setdefault(functions.containing(target), set()).add(functions.containing(source))
    for row in np.flatnonzero(chosen & parts).tolist():
        own = owners.get(row, set()) - {row}
        chosen[row] = any(one >= 0 and not parts[one] for one in own) and all(
            one >= 0 and _may_carry(branches.flow(one)) for one in own
        )
    return chosen


def _rows_near(image: ElfImage, patch: int) -> range:
    """The functions, by number, that may have code in reach of a short jump at `patch`."""
    low, high = _reach(patch)
    starts = image.functions.rows["vaddr"]
    first = max(0, int(np.searchsorted(starts, low, "right")) - _MOST_NESTED)
    return range(first, int(np.searchsorted(starts, high, "right")))


def _has_plain_frame(image: ElfImage, row: int) -> bool:
    # Whether one frame without landing pads describes the whole function, and no other begins in
    # it.
    frames, entry = image.frames, image.functions.rows["vaddr"][row]
    at = int(np.searchsorted(frames["start"], entry))
    if at == len(frames) or frames["start"][at] != entry or frames["catches"][at]:
        return False
    end = image.functions.ends[row]
    beyond = at + 1 == len(frames) or bool(frames["start"][at + 1] >= end)
    return beyond and bool(entry + frames["size"][at] >= end)


def _is_named(image: ElfImage, row: int) -> bool:
    # Whether data holds an address inside of a function.
    pointers, entry = image.code_pointers, image.functions.rows["vaddr"][row]
    first, last = np.searchsorted(pointers, (entry + np.uint64(1), image.functions.ends[row]))
    return bool(last > first)


def _may_carry(flow: Flow) -> bool:
    # Whether the decode of a function tells all about it: one line of code, no computed jump.
    ips = [instruction.ip for instruction in flow.instructions]
    return flow.trusted and not flow.jumps and all(a < b for a, b in pairwise(ips))


def _reach(patch: int) -> tuple[int, int]:
    behind = patch + SHORT_SIZE
    return behind - FARTHEST_BACK, behind + FARTHEST_AHEAD


def _crosses(vaddr: int) -> bool:
    return vaddr % PAGE_SIZE > PAGE_SIZE - PATCH_SIZE


def _is_whole(flow: Flow, carrier: Carrier, reached: set[int]) -> bool:
    # Whether each instruction of it is one that direct flow reaches: nothing of it is data.
    # And none can fault, but on the stack or on data of its own module: handlers of the program
    # know such instructions by their addresses, and unwinders need them.
    own = [i for i in flow.instructions if carrier.vaddr <= i.ip < carrier.vaddr + carrier.window]
    return sum(len(instruction) for instruction in own) == carrier.window and all(
        instruction.ip in reached and not _may_fault(instruction) for instruction in own
    )


def _may_fault(instruction: Instruction) -> bool:
    kinds = (instruction.op_kind(number) for number in range(instruction.op_count))
    if instruction.mnemonic in (Mnemonic.DIV, Mnemonic.IDIV):
        return True
    if instruction.mnemonic == Mnemonic.LEA or instruction.mnemonic == Mnemonic.NOP:
        return False
    if any(kind in _STRING_OPERANDS for kind in (instruction.op_kind(n) for n in range(2))):
        return True
    plain = instruction.memory_base in (Register.RSP, Register.RIP)
    plain = plain and instruction.memory_index == Register.NONE
    plain = plain and instruction.segment_prefix == Register.NONE
    return OpKind.MEMORY in kinds and not plain


def _reached(flow: Flow) -> set[int]:
    """The instructions that are reached from the first one by direct flow: vaddrs."""
    by_ip = {instruction.ip: instruction for instruction in flow.instructions}
    reached: set[int] = set()
    waiting = [flow.start]
    while waiting:
        ip = waiting.pop()
        instruction = by_ip.get(ip)
        if instruction is None or ip in reached:
            continue
        reached.add(ip)
        calls_inside = (
            instruction.flow_control == FlowControl.CALL
            and flow.start <= instruction.near_branch_target < flow.start + flow.size
        )  # what follows may be data, whose address the call makes
        if not (ends_flow(instruction) or calls_inside or instruction.flow_control in _TRAPS):
            waiting.append(instruction.next_ip)
        if instruction.flow_control in _JUMPS:
            waiting.append(instruction.near_branch_target)
    return reached
