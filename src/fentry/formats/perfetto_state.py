"""What packets of a Perfetto trace refer to: interned texts and tracks, described once each.

Both give numbers for whole columns, and hand out the packets that these numbers need before them.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Events
from fentry.formats import perfetto_packets as packets
from fentry.formats.exports import Source
from fentry.formats.id_cache import Ids
from fentry.formats.symbol_names import SymbolNames
from fentry.ring.layout import TID_BITS, TID_MASK

_NO_MODULE = b"[unknown]"
_THREAD, _PROCESS, _OTHER = range(3)
_KIND_BITS = 2


def text(value: str | bytes) -> bytes:
    """A name as UTF-8, which the format asks for: bytes that are none become U+FFFD."""
    plain = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return plain.decode("utf-8", "replace").encode()


class Names:
    """Interned names of functions, of their files, and of their callers."""

    def __init__(self, symbols: SymbolNames) -> None:
        self._symbols = symbols
        # the last one is that of all addresses without a symbol
        modules = [*(m or _NO_MODULE for m in symbols.modules[: symbols.nr_symbols]), _NO_MODULE]
        numbers = {module: number for number, module in enumerate(dict.fromkeys(modules))}
        self._modules = list(numbers)
        self._module_of = np.array([numbers[module] for module in modules], np.intp)
        self._new: list[bytes] = []
        self._forget()

    def columns(self, events: Events) -> dict[str, Ids]:
        """The iids of name and category, and of parent where there is one."""
        if self._symbols.forget_unknown():
            self._forget()
        names = self._symbols.names
        functions = self._symbols.of_ips(events.ip)
        modules = self._module_of[np.minimum(functions, self._symbols.nr_symbols)]
        columns = {
            "name": self._iids(packets.INTERNED_NAMES, functions, names),
            "category": self._iids(packets.INTERNED_CATEGORIES, modules, self._modules),
        }
        if events.parent_ip is not None:
            parents = self._symbols.of_returns(events.parent_ip)
            columns["parent"] = self._iids(packets.INTERNED_STRINGS, parents, names)
        return columns

    def take_new(self) -> list[bytes]:
        """The packets for what was given since the last call."""
        new, self._new = self._new, []
        return new

    def _iids(self, kind: int, ids: Ids, texts: list[bytes]) -> Ids:
        # an iid is the id + 1: 0 is none
        seen = self._seen[kind]
        if len(seen) < len(texts):
            room = max(len(texts) - len(seen), len(seen))
            seen = self._seen[kind] = np.append(seen, np.zeros(room, np.bool_))
        known = seen[ids]
        if not known.all():
            fresh = np.unique(ids[~known])
            seen[fresh] = True
            entries = [packets.interned(kind, i + 1, text(texts[i])) for i in fresh.tolist()]
            self._new.append(packets.interned_data(entries))
        return ids + 1

    def _forget(self) -> None:
        self._new.append(packets.cleared_state())
        kinds = packets.INTERNED_NAMES, packets.INTERNED_CATEGORIES, packets.INTERNED_STRINGS
        self._seen = {kind: np.zeros(0, np.bool_) for kind in kinds}


class Tracks:
    """Tracks by uuid: of threads, each below its process, and others.

    A uuid has 56 bits, 32 of them by machine, process and moment: traces may be put one after the
    other in one file.
    """

    def __init__(self, source: Source) -> None:
        meta = source.trace.meta
        self._tasks = source.tasks
        self._pid = meta.pid
        self._children = dict[int, str]()
        for event in source.trace.events:
            pid = event.get("pid")
            if event.get("kind") == "fork" and isinstance(pid, int):
                self._children[pid] = str(event.get("name"))
        words = f"{meta.host} {meta.pid} {source.trace.clock.pairs[0]}"
        digest = hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=4).digest()
        self._trace_bits = int.from_bytes(digest, "big") << (_KIND_BITS + TID_BITS)
        self._known = np.zeros(1 << TID_BITS, np.bool_)
        self._nr_others = 0
        self._new: list[bytes] = []
        self._process = self._add_process(meta.pid, meta.exe)

    def of_threads(self, events: Events) -> NDArray[np.uint64]:
        """The uuid of each event's thread; its name is that of its first call."""
        new = ~self._known[events.tid]
        if new.any():
            firsts = np.flatnonzero(new)
            tids, places = np.unique(events.tid[firsts], return_index=True)
            keys = self._tasks.keys(events.take(firsts[places]))
            for tid, key in zip(tids.tolist(), keys.tolist(), strict=True):
                self._add_thread(tid, self._tasks.unpack(key)[0])
        return events.tid.astype(np.uint64) | np.uint64(self._uuid(_THREAD, 0))

    def add(self, name: str) -> int:
        """The uuid of a new track below the process."""
        uuid = self._uuid(_OTHER, self._nr_others)
        self._nr_others += 1
        self._new.append(packets.child_track(uuid, self._process, text(name)))
        return uuid

    def take_new(self) -> list[bytes]:
        """The packets for what was given since the last call."""
        new, self._new = self._new, []
        return new

    def _add_thread(self, tid: int, comm: bytes) -> None:
        self._known[tid] = True
        pid = self._pid
        if tid in self._children:
            pid = tid
            self._add_process(pid, self._children[pid])
        uuid = self._uuid(_THREAD, tid)
        self._new.append(packets.thread_track(uuid, pid, tid, text(comm)))

    def _add_process(self, pid: int, name: str) -> int:
        uuid = self._uuid(_PROCESS, pid)
        self._new.append(packets.process_track(uuid, pid, text(name)))
        return uuid

    def _uuid(self, kind: int, number: int) -> int:
        return self._trace_bits | kind << TID_BITS | number & TID_MASK
