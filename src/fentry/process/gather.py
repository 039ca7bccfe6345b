"""Many small pieces of a target's memory by one system call: process_vm_readv(2).

Inside a stop every look through /proc/PID/mem costs as much as what it reads. This one is bound to
the pid, not to an address space: who needs that asks Memory.is_alive() first. It reads nothing
that the target itself could not, and may be forbidden: then there is no answer.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

MOST_PIECES = 1024  # IOV_MAX, include/uapi/linux/uio.h

_readv = ctypes.CDLL(None, use_errno=True).process_vm_readv
_readv.argtypes = [
    ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong
]  # fmt: skip
_readv.restype = ctypes.c_ssize_t

Places = Sequence[tuple[int, int]]
Pieces = Sequence[tuple[int, bytes]]


class Gather:
    """Reads `places`, (address, bytes) each, of process `pid`. Raises ValueError for more than
    MOST_PIECES."""

    def __init__(self, pid: int, places: Places) -> None:
        if len(places) > MOST_PIECES:
            raise ValueError(f"{len(places)} pieces are more than one system call reads")
        self._pid = pid
        self._count = len(places)
        self._bytes = sum(count for _, count in places)
        self._buffer = np.empty(self._bytes, np.uint8)
        # struct iovec: base and length, 8 bytes each
        self._from = array("Q", chain.from_iterable(places))
        self._to = array("Q", (self._buffer.ctypes.data, self._bytes))

    def read(self) -> NDArray[np.uint8] | None:
        """All the pieces, one behind the other, until the next call; None where one of them is not
        there to be read this way."""
        to, places = self._to.buffer_info()[0], self._from.buffer_info()[0]
        done = _readv(self._pid, to, 1, places, self._count, 0)
        return self._buffer if done == self._bytes else None


class Evidence:
    """What an operation relies on: `pieces`, (address, bytes) each, of the memory of `pid`. Made
    before a stop; inside, holds() tells by one system call whether all of it is still there.
    Without pieces nothing is known, and it never holds."""

    def __init__(self, pid: int, pieces: Pieces | None) -> None:
        self.held = False
        pieces = pieces or ()
        self._expected = b"".join(piece for _, piece in pieces)
        self._gather = Gather(pid, [(address, len(piece)) for address, piece in pieces])

    def holds(self) -> bool:
        """Whether all pieces are what they were: `held` from now on. False also where that is not
        to be known."""
        found = self._gather.read() if self._expected else None
        self.held = found is not None and found.tobytes() == self._expected
        return self.held
