"""Small ids for 64-bit values that repeat, for whole columns at a time.

A cache by hash answers nearly all of a column with one gather and one comparison; only values
not met lately are handed, once each, to the slow search.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_BITS = 16
_MIX = np.uint64(0x9E37_79B9_7F4A_7C15)  # 2**64 / golden ratio: Knuth, TAOCP vol. 3, 6.4
_SHIFT = np.uint64(64 - _BITS)

Ids = NDArray[np.intp]
Values = NDArray[np.uint64]


class IdCache:
    """Ids of values; `search` gives the ids of distinct values and must be repeatable."""

    def __init__(self, search: Callable[[Values], Ids]) -> None:
        self._search = search
        self.clear()

    def clear(self) -> None:
        """Forget all ids."""
        self._values = np.ones(1 << _BITS, np.uint64)
        # an empty slot holds 1, which belongs into one slot only; there it is 0, which does not
        self._values[_slots(np.ones(1, np.uint64))] = 0
        self._ids = np.zeros(1 << _BITS, np.intp)

    def of(self, values: Values) -> Ids:
        """The id of each value."""
        slots = _slots(values)
        ids = self._ids[slots]
        missed = self._values[slots] != values
        if not missed.any():
            return ids
        where = np.flatnonzero(missed)
        new, inverse = np.unique(values[where], return_inverse=True)
        found = self._search(new)
        ids[where] = found[inverse]
        slots = _slots(new)
        self._values[slots] = new
        self._ids[slots] = found
        return ids


def _slots(values: Values) -> Ids:
    return ((values * _MIX) >> _SHIFT).view(np.intp)
