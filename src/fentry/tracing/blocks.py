"""Records that were taken out of a ring, kept as they are: 16 or 24 bytes each."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_RECORDS = 65536

Records = NDArray[np.void]


class Part(NamedTuple):
    """Consecutive records of one CPU."""

    cpu: int
    records: Records


class Blocks:
    """The records of each CPU in the order of its ring; `count` of all of them were added.

    One thread may add while another reads what was there when it asked: what is written is never
    written again.
    """

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self.count = 0
        self._dtype = dtype
        self._cpus: dict[int, _Line] = {}

    @property
    def kept(self) -> int:
        """How many have not been forgotten."""
        return sum(line.end - line.start for line in list(self._cpus.values()))

    def add(self, cpu: int, records: Records) -> None:
        """Keep a copy of these."""
        line = self._cpus.get(cpu)
        if line is None:
            line = self._cpus[cpu] = _Line(self._dtype)
        line.add(records)
        self.count += len(records)

    def parts(self, since: Mapping[int, int] | None = None) -> list[Part]:
        """What is kept, or of it what came when so many of each CPU had been added."""
        since = since or {}
        return [
            Part(cpu, records)
            for cpu, line in sorted(self._cpus.items(), key=itemgetter(0))
            for records in line.parts(since.get(cpu, 0))
        ]

    def forget(self, until: Mapping[int, int]) -> None:
        """Let go of the first so many of each CPU, by whole blocks."""
        for cpu, end in until.items():
            self._cpus[cpu].forget(end)


class _Line:
    # The blocks of one CPU; positions `start` to `end` are in them, the last one is being filled.

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self.start = 0
        self.end = 0
        self._dtype = dtype
        self._blocks: list[Records] = []

    def add(self, records: Records) -> None:
        while len(records):
            used = (self.end - self.start) - (len(self._blocks) - 1) * BLOCK_RECORDS
            if not self._blocks or used == BLOCK_RECORDS:
                self._blocks.append(np.empty(BLOCK_RECORDS, self._dtype))
                used = 0
            taken = records[: BLOCK_RECORDS - used]
            self._blocks[-1][used : used + len(taken)] = taken
            self.end += len(taken)
            records = records[len(taken) :]

    def parts(self, since: int) -> list[Records]:
        found = []
        for number, block in enumerate(self._blocks):
            first = self.start + number * BLOCK_RECORDS
            part = block[max(since - first, 0) : max(min(self.end - first, BLOCK_RECORDS), 0)]
            if len(part):
                found.append(part)
        return found

    def forget(self, until: int) -> None:
        while self._blocks and self.start + BLOCK_RECORDS <= until:
            del self._blocks[0]
            self.start += BLOCK_RECORDS
