"""The counters of one controller: shared memory with a row for each CPU, one more for threads
without rseq, and in each a slot for every counting ops with a u64 a site."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.controllers import COUNT_SLOTS, count_body
from fentry.errors import BadInput
from fentry.process.memory import Memory
from fentry.process.proc import possible_cpus
from fentry.process.shared import SharedMemory
from fentry.region.layout import counter_bases_offset
from fentry.region.region import Region, Segment
from fentry.trampolines.body import CountBody


def slot_bytes(region: Region) -> int:
    """Size of one slot: 8 bytes for each row of sites of a region."""
    return int(region.registry.header["site_rows"]) * 8


def bytes_of(region: Region) -> int:
    """Size of the counters of one controller."""
    return (possible_cpus() + 1) * COUNT_SLOTS * slot_bytes(region)


def write_bases(memory: Memory, region: Region, segment: Segment) -> None:
    """Tell trampolines where each CPU's counters are, by the number of their owner."""
    step = np.uint64(COUNT_SLOTS * slot_bytes(region))
    bases = np.arange(possible_cpus(), dtype="<u8") * step + np.uint64(segment.address)
    place = region.bases + counter_bases_offset(segment.owner, possible_cpus())
    memory.write(place, bases.tobytes())


def free_slot(taken: Collection[int]) -> int:
    """A slot that no counting ops has. Raises BadInput when all are taken."""
    free = sorted(set(range(COUNT_SLOTS)) - set(taken))
    if not free:
        raise BadInput(f"{COUNT_SLOTS} counting ops are registered already")
    return free[0]


class Counters:
    """The counters in `segment`, whose memory is mapped here."""

    def __init__(self, region: Region, segment: Segment, memory: SharedMemory) -> None:
        self._region = region
        self._segment = segment
        self._memory = memory
        self._shape = possible_cpus() + 1, COUNT_SLOTS, slot_bytes(region) // 8

    def body(self, slot: int, threads: int) -> CountBody:
        """What a trampoline does to count in a slot."""
        return count_body(self._region, self._segment, slot, threads)

    def zero(self, slot: int) -> None:
        """Begin anew in a slot."""
        self._every[:, slot, :] = 0

    def totals(self, slot: int) -> NDArray[np.uint64]:
        """Calls counted in a slot by row of site: uint64[rows of sites]."""
        totals: NDArray[np.uint64] = self._every[:, slot, :].sum(axis=0, dtype=np.uint64)
        return totals

    @property
    def _every(self) -> NDArray[np.uint64]:
        count = self._shape[0] * self._shape[1] * self._shape[2]
        return np.frombuffer(self._memory.bytes, "<u8", count=count).reshape(self._shape)
