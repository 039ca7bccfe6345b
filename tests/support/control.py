"""The page a target shares with its test: gate, stop word and counters (targets/bed_page.h)."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections import Counter
from pathlib import Path

MAGIC = 0x64656266
PAGE_BYTES = 65536
READY, STOP, HOLD, PARKED, WORKERS, NR_SLOTS, WISH, BAD = 4, 8, 12, 16, 20, 24, 28, 32
SLOTS, SLOT_BYTES, NAME_BYTES = 64, 64, 48
SYS_FUTEX = 202
FUTEX_WAKE = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Control:
    """Our view of the page at `path`; create() makes one, close() unmaps it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), PAGE_BYTES)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))

    @classmethod
    def create(cls, path: Path, *, owner: int, hold: bool = False) -> Control:
        """A fresh page owned by uid `owner`; with `hold` the workers start at a closed gate."""
        with open(path, "wb") as file:
            file.write(struct.pack("<IIII", MAGIC, 0, 0, int(hold)))
            file.truncate(PAGE_BYTES)
        path.chmod(0o600)
        if owner != os.getuid():
            os.chown(path, owner, owner)
        return cls(path)

    @property
    def ready(self) -> bool:
        return self._word(READY) != 0

    @property
    def bad(self) -> int:
        """Failed self-checks of the target so far."""
        return int(struct.unpack_from("<Q", self._page, BAD)[0])

    @property
    def parked(self) -> bool:
        """True when the gate is closed and every worker waits at it."""
        return self._word(HOLD) == 1 and self._word(PARKED) >= self._word(WORKERS)

    @property
    def leaving(self) -> bool:
        """True while the gate is open and some that waited at it have not left it yet."""
        return self._word(HOLD) == 0 and self._word(PARKED) != 0

    def hold(self) -> None:
        """Close the gate; workers stop at their next look. Wait for `parked`."""
        self._set(HOLD, 1)

    def go(self) -> None:
        """Open the gate and wake all who wait at it."""
        self._set(HOLD, 0)

    def wish(self, number: int) -> None:
        """Tell the target a number; what it means is up to the target."""
        self._set(WISH, number)

    def stop(self) -> None:
        """Ask the target to finish and print END.

        The gate opens as well: who is on the way to it, or goes there again after a stop of ours,
        would otherwise wait there and never be woken.
        """
        self._set(STOP, 1)
        self._set(HOLD, 0)

    def counters(self) -> Counter[str]:
        """Counters by name; those of equal name (one a thread) are summed."""
        sums: Counter[str] = Counter()
        for slot in range(self._word(NR_SLOTS)):
            # In the machine's own order: a value is read at once, not byte for byte.
            name, value = struct.unpack_from(f"@{NAME_BYTES}sQ", self._page, self._slot(slot))
            if name[0]:  # which is written last
                sums[name.rstrip(b"\0").decode()] += value
        return sums

    def _slot(self, index: int) -> int:
        return SLOTS + index * SLOT_BYTES

    def _word(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self._page, offset)[0])

    def _set(self, offset: int, value: int) -> None:
        # In one store: struct.pack_into() writes zeros first, which would open the gate.
        ctypes.c_uint32.from_buffer(self._page, offset).value = value
        self._wake(offset)

    def _wake(self, offset: int) -> None:
        address = ctypes.c_void_p(self._address + offset)
        _libc.syscall(SYS_FUTEX, address, FUTEX_WAKE, 0x7FFFFFFF, None, None, 0)
