"""The list of ops in a target, as its list trampolines walk it: read by whoever looks or adopts.

It is input that the target could have changed: what cannot be true ends the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.process.memory import Memory
from fentry.region.layout import LIST_DTYPE, OPS_ROWS

_MOST_SITES = 1 << 26


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One ops of a list: `bits` is its bitmap over rows of sites, `body` the code that it runs;
    addresses are in the target."""

    id: int
    body: int
    body_bytes: int
    bitmap: int
    bits: bytes

    def wants(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these rows of sites the ops wants."""
        bits = np.unpackbits(np.frombuffer(self.bits, np.uint8), bitorder="little")
        known = (rows >= 0) & (rows < len(bits))
        result: NDArray[np.bool_] = known & (bits[np.where(known, rows, 0)] != 0)
        return result


def read_list(memory: Memory, address: int) -> list[ListEntry]:
    """The entries of the table at `address`, in the order in which they run."""
    return list(_entries(memory, address)) if address else []


def _entries(memory: Memory, address: int) -> Iterator[ListEntry]:
    for number in range(OPS_ROWS):
        place = address + number * LIST_DTYPE.itemsize
        piece = memory.read_some(place, LIST_DTYPE.itemsize)
        if len(piece) < LIST_DTYPE.itemsize:
            return
        row = np.frombuffer(piece, LIST_DTYPE)[0]
        sites, bitmap = int(row["sites"]), int(row["bitmap"])
        if not row["body"] or sites > _MOST_SITES:
            return
        bits = memory.read_some(bitmap, sites // 8)
        if len(bits) != sites // 8 or not bits:
            return
        yield ListEntry(int(row["id"]), int(row["body"]), int(row["body_bytes"]), bitmap, bits)
