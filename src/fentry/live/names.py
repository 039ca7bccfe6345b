"""Names for lines that are printed as calls happen: looked up when an address or a thread is first
met, so that nothing waits until all names are known, and libraries may come meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Events
from fentry.formats.id_cache import IdCache, Ids, Values
from fentry.formats.symbol_names import printable
from fentry.formats.task_names import UNKNOWN
from fentry.formats.tracefile_payloads import Task
from fentry.ring.layout import TID_BITS, TID_MASK
from fentry.symbols.table import SymbolTable

_MOST_NAMES = 1 << 18
_CPU_BITS = 16
_EPOCHS = 1 << (64 - TID_BITS - _CPU_BITS)


class LiveNames:
    """Names by id, as formats.symbol_names.SymbolNames; `symbols` gives the table of now.

    Ids are made as addresses of new functions are met. Beyond 262,144 names `forget_unknown`
    drops all, after which ids of earlier answers are void.
    """

    def __init__(self, symbols: Callable[[], SymbolTable]) -> None:
        self.names: list[bytes] = []
        self.modules: list[bytes] = []
        self.version = 0
        self._symbols = symbols
        self._ids: dict[tuple[bytes, bytes], int] = {}
        self._ips = IdCache(self._search_ips)
        self._returns = IdCache(self._search_returns)

    def of_ips(self, ips: Values) -> Ids:
        """The id of the name of each function entry."""
        return self._ips.of(ips)

    def of_returns(self, parent_ips: Values) -> Ids:
        """The id of the name of the function that each return address leads back into: that of the
        byte before it, which belongs to the call, else its own."""
        return self._returns.of(parent_ips)

    def renew(self) -> None:
        """Something was loaded: what an address means may have changed."""
        self._ips.clear()
        self._returns.clear()

    def forget_unknown(self) -> bool:
        """Whether there were so many names that all were dropped."""
        if len(self.names) < _MOST_NAMES:
            return False
        self.names.clear()
        self.modules.clear()
        self._ids.clear()
        self.version += 1
        self.renew()
        return True

    def _search_ips(self, ips: Values) -> Ids:
        return self._named(ips, self._symbols().find(ips))

    def _search_returns(self, parent_ips: Values) -> Ids:
        symbols = self._symbols()
        places = symbols.find(parent_ips - np.uint64(1))
        return self._named(parent_ips, np.where(places < 0, symbols.find(parent_ips), places))

    def _named(self, addresses: Values, places: NDArray[np.int64]) -> Ids:
        pairs = zip(addresses.tolist(), places.tolist(), strict=True)
        return np.array([self._id(address, place) for address, place in pairs], np.intp)

    def _id(self, address: int, place: int) -> int:
        if place < 0:
            key = (b"0x%08x" % address if address else b"0", b"")  # as the kernel does
        else:
            name, module = self._symbols().named(place)
            key = printable(_encoded(name)), printable(_encoded(module.path))
        number = self._ids.get(key)
        if number is None:
            number = self._ids[key] = len(self.names)
            self.names.append(key[0])
            self.modules.append(key[1])
            self.version += 1
        return number


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class LiveSites:
    """Which function a record is of; `known` gives all site keys of now, and their ips."""

    def __init__(self, known: Callable[[], tuple[NDArray[np.uint32], Values]]) -> None:
        self._known = known
        self._keys = np.zeros(1, np.uint32)
        self._ips = np.zeros(1, np.uint64)

    def ips(self, keys: NDArray[np.uint32]) -> Values:
        """The ip that each key stands for, uint64[n]; 0 for one that nobody has given out."""
        found = self._find(keys)
        if not found.all():  # sites that are new since the last look, or spoilt records
            known, ips = self._known()
            order = np.argsort(known)
            self._keys = np.append(known[order], np.uint32(0))
            self._ips = np.append(ips[order], np.uint64(0))
            found = self._find(keys)
        return found

    def _find(self, keys: NDArray[np.uint32]) -> Values:
        # Whoever is greater than all keys finds the 0 behind them, and differs from it.
        place = np.searchsorted(self._keys[:-1], keys)
        return np.where(self._keys[place] == keys, self._ips[place], np.uint64(0))


class LiveTasks:
    """The comm of each thread as it is now, as formats.task_names.TaskNames."""

    def __init__(self) -> None:
        self._comms: dict[int, bytes] = {}
        self._is_known = np.zeros(TID_MASK + 1, np.bool_)
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._comms)

    def update(self, tasks: Iterable[Task]) -> None:
        """Learn names; those of other threads stay."""
        for task in tasks:
            self._comms[task.tid] = printable(task.comm)
            self._is_known[task.tid & TID_MASK] = True
            self._epoch = (self._epoch + 1) % _EPOCHS

    def unknown(self, tids: NDArray[np.uint32]) -> list[int]:
        """Those of these threads that nothing was said of."""
        return [int(tid) for tid in np.unique(tids[~self._is_known[tids]])]

    def give_up(self, tids: Iterable[int]) -> None:
        """Nothing will be said of these threads, unless they are named all the same."""
        self._is_known[list(tids)] = True

    def clear(self) -> None:
        """Forget all names."""
        self._comms.clear()
        self._is_known[:] = False

    def keys(self, events: Events) -> Values:
        """uint64[n]: equal for events of the same thread and CPU, and others once any thread was
        named."""
        key = events.tid.astype(np.uint64) | (events.cpu.astype(np.uint64) << np.uint64(TID_BITS))
        return key | np.uint64(self._epoch << (TID_BITS + _CPU_BITS))

    def unpack(self, key: int) -> tuple[bytes, int, int]:
        """The comm, tid and cpu that a key stands for."""
        tid, cpu = key & TID_MASK, key >> TID_BITS & ((1 << _CPU_BITS) - 1)
        return self._comms.get(tid, UNKNOWN), tid, cpu
