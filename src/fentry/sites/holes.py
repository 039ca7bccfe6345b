"""Holes: padding between functions that nothing runs, for the long jumps of short sites.

A hole is five bytes of NOPs or int3 behind a function that does not run on into them. Whether
something branches into its gap, up to its end, is for who takes it to find out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from iced_x86 import FlowControl, Mnemonic
from numpy.typing import NDArray

from fentry.sites.branches import Branches
from fentry.sites.prologue import is_padding
from fentry.sites.site import FARTHEST_AHEAD, FARTHEST_BACK, PAGE_SIZE, PATCH_SIZE, SHORT_SIZE
from fentry.symbols.elf import ElfImage

_LONGEST_PADDING = 256
_MOST_NESTED = 64
# What control does not go on from, whatever it leads to.
_ENDS = frozenset(
    (FlowControl.RETURN, FlowControl.UNCONDITIONAL_BRANCH, FlowControl.INDIRECT_BRANCH)
)
_TRAPS = frozenset((Mnemonic.UD2, Mnemonic.HLT))


@dataclass(frozen=True, slots=True)
class Hole:
    """Five bytes at `vaddr`, in a gap between functions that begins at `gap`."""

    vaddr: int
    gap: int

    @property
    def before(self) -> range:
        """The addresses from which control would come to its end, and its own."""
        return range(self.gap, self.vaddr + PATCH_SIZE)


class Holes:
    """The holes of an image that are still free.

    `starts`, `ends`: vaddr of the first and one past the last byte of each function that is
    kept, or replaced, uint64[n] sorted by start.
    """

    def __init__(
        self,
        image: ElfImage,
        branches: Branches,
        starts: NDArray[np.uint64],
        ends: NDArray[np.uint64],
    ) -> None:
        self._image = image
        self._branches = branches
        self._next = np.append(starts[1:], np.uint64(2**63)).astype(np.int64)
        self._end = np.maximum.accumulate(ends).astype(np.int64) if len(ends) else ends
        self._taken: set[int] = set()

    def near(self, patch: int) -> list[Hole]:
        """Free holes in reach of a short jump at `patch`, nearest first."""
        behind = patch + SHORT_SIZE
        low, high = behind - FARTHEST_BACK, behind + FARTHEST_AHEAD
        first = max(0, int(np.searchsorted(self._end, low - _LONGEST_PADDING)) - 1)
        last = int(np.searchsorted(self._end, high, "right"))
        found = [
            hole
            for row in range(first, last)
            for hole in self._in_gap(row)
            if low <= hole.vaddr <= high and hole.vaddr not in self._taken
        ]
        return sorted(found, key=lambda hole: abs(hole.vaddr - patch))

    def take(self, hole: Hole) -> None:
        """The bytes of a hole are used from now on."""
        self._taken.update(range(hole.vaddr - PATCH_SIZE + 1, hole.vaddr + PATCH_SIZE))

    def _in_gap(self, row: int) -> Iterator[Hole]:
        start, end = int(self._end[row]), int(self._next[row])
        gap = end - start
        if not PATCH_SIZE <= gap <= _LONGEST_PADDING or not self._ends_flow(row, start):
            return
        if not is_padding(self._image.read(start, gap), gap):
            return
        for place in range(start, end - PATCH_SIZE + 1):
            if place % PAGE_SIZE <= PAGE_SIZE - PATCH_SIZE:
                yield Hole(place, start)

    def _ends_flow(self, row: int, limit: int) -> bool:
        # Whether what ends last of the functions up to `row`, at `limit` or with padding of its
        # own before that, does not run on. Functions may lie within each other.
        ends = self._image.functions.ends[: row + 1]
        last = int(ends[max(0, row - _MOST_NESTED) :].max())
        if last > limit or int(ends.max()) != last:
            return False
        own = np.flatnonzero(ends == last)
        return all(self._stops(int(one), last) for one in own[-_MOST_NESTED:])

    def _stops(self, row: int, end: int) -> bool:
        flow = self._branches.flow(row)
        final = [instruction for instruction in flow.instructions if instruction.next_ip == end]
        return flow.trusted and any(
            instruction.flow_control in _ENDS or instruction.mnemonic in _TRAPS
            for instruction in final
        )
