"""Executable memory of one target: its arenas, and new segments where an arena has no room."""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fentry.process.maps import REACH, Mapping, find_gap, read_maps
from fentry.process.memory import Memory
from fentry.process.target import Halt
from fentry.region.layout import Kind
from fentry.region.region import Region
from fentry.sites.pad import PAD_BYTES
from fentry.trampolines.arena import SLOT_BYTES, Arena, Neighbourhood


class CodeSpace:
    """The arenas by number, and what lies in the target for them."""

    def __init__(self, memory: Memory, region: Region, arenas: Sequence[Arena]) -> None:
        self.arenas = list(arenas)
        self._memory = memory
        self._region = region

    def at(self, address: int) -> Arena:
        """The arena whose modules are nearest to an address."""

        def distance(arena: Arena) -> int:
            return max(arena.near.low - address, address - arena.near.high, 0)

        return min(self.arenas, key=distance)

    def is_short(self, need: Dictionary[int, int]) -> bool:
        """Whether an arena has less than it needs: number -> bytes in one piece."""
        return any(count and self.arenas[i].shortage(count) for i, count in need.items())

    def make_room(self, halt: Halt, need: Dictionary[int, int]) -> None:
        """Map a segment for each arena that is short."""
        maps = halt.maps
        for i, count in need.items():
            short = self.arenas[i].shortage(count) if count else 0
            if short:
                self._add(halt, self.arenas[i], short, maps)
                maps = read_maps(self._memory.pid)

    def note_used(self) -> None:
        """Write into the registry what is given out: known to whoever takes the arenas over."""
        for arena in self.arenas:
            for segment, used in arena.used().items():
                self._region.set_used(segment, used)

    def take_code(self, halt: Halt, count: int, near: int = 0) -> int:
        """The address of `count` bytes, of the first arena or that which serves `near`, inside a
        stop."""
        number = self.arenas.index(self.at(near)) if near else 0
        self.make_room(halt, {number: count})
        taken = self.arenas[number].take(count)
        self.note_used()
        return taken

    def give_code(self, address: int, count: int) -> None:
        """Take back what was given out."""
        self.at(address).give(address, count)

    def gaps(
        self, spans: Sequence[tuple[int, int]], sites: NDArray[np.void]
    ) -> list[tuple[int, int, int]]:
        """What of the segments is given out, but not to `spans` (address, bytes) nor to the pads
        of `sites`, rows of the registry: arena, from, to, in their order."""
        pads = sites[sites["pad"] != 0]
        sizes = PAD_BYTES * (1 + (pads["carrier"] != 0).astype(np.int64))
        starts = np.concatenate([pads["pad"].astype(np.int64), [a for a, _ in spans]])
        rounded = [-(-count // SLOT_BYTES) * SLOT_BYTES for _, count in spans]
        ends = starts + np.concatenate([sizes, rounded])
        order = np.argsort(starts)
        starts, ends = starts[order].astype(np.int64), ends[order].astype(np.int64)
        found = []
        for number, arena in enumerate(self.arenas):
            for segment, used in arena.used().items():
                low, high = segment.address, segment.address + used
                first, last = np.searchsorted(starts, [low, high])
                edges = np.concatenate([[low], ends[first:last]])
                nexts = np.concatenate([starts[first:last], [high]])
                edges = np.maximum.accumulate(edges)
                for at in np.flatnonzero(nexts > edges).tolist():
                    found.append((number, int(edges[at]), int(nexts[at])))
        return sorted(found, key=lambda gap: gap[1])

    def _add(self, halt: Halt, arena: Arena, count: int, maps: list[Mapping]) -> None:
        address = self._unlike_others(maps, count, arena.near)
        arena.add(self._region.add(halt.remote, Kind.CODE, count, address=address))

    def _unlike_others(self, maps: list[Mapping], count: int, near: Neighbourhood) -> int:
        # A gap whose addresses share no low half with other code: the low half of a return
        # address is the key of a site.
        taken = [(a.near.low, a.near.high) for a in self.arenas]
        taken += [(s.address, s.end) for a in self.arenas for s in a.segments]
        alike = [
            Mapping(start, end, "---p", 0, "00:00", 0, "")
            for low, high in taken
            for start, end in _same_low_halves(low, high, near.high - REACH, near.low + REACH)
        ]
        return find_gap([*maps, *alike], count, near.low, near.high)


def _same_low_halves(low: int, high: int, lo: int, hi: int) -> list[tuple[int, int]]:
    # The ranges in lo..hi whose addresses have a low half in common with one of low..high.
    span = 1 << 32
    if high - low >= span:
        return []  # covers everything: nothing to avoid
    first, last = (lo - high) // span + 1, (hi - low - 1) // span
    return [(low + k * span, high + k * span) for k in range(first, last + 1)]
