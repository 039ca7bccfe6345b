"""Names of addresses: which symbol an ip or a return address lies in, for whole columns.

Addresses repeat, so a cache by hash answers nearly all of them with one gather; only addresses
not met before are searched for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from fnmatch import translate

import numpy as np
from numpy.typing import NDArray

from fentry.errors import SymbolNotFound
from fentry.events.columns import Addresses
from fentry.formats.id_cache import IdCache, Ids
from fentry.formats.tracefile_layout import NO_MODULE
from fentry.formats.tracefile_reader import TraceReader
from fentry.formats.tracefile_set import TraceSet
from fentry.symbols.demangle import base_name, demangle_all
from fentry.symbols.patterns import Pattern, choose, parse

_MAX_UNKNOWN = 1 << 16
_NEAR_LIMIT = 20_000


class SymbolNames:
    """Names by id: ids below len(symbols) are symbols in order of ip, others plain addresses.

    `names` are the names by id and grow by "0x…" (as the kernel prints an address without a
    symbol) when addresses of no symbol are met.  At most 65,536 such are remembered; beyond
    that `forget_unknown` drops them, after which ids of earlier answers are void.
    """

    def __init__(
        self,
        ips: Addresses,
        sizes: Addresses,
        names: Sequence[bytes],
        modules: Sequence[bytes] = (),
    ) -> None:
        order = np.argsort(ips, kind="stable")
        if len(order):
            # of several symbols at one ip the last that was written holds
            last = np.append(ips[order][1:] != ips[order][:-1], True)
            order = order[last]
        self.starts = ips[order]
        self.sizes = np.maximum(sizes[order], np.uint64(1))
        self.names = [names[place] for place in order.tolist()]
        self.modules = [modules[place] if modules else b"" for place in order.tolist()]
        self.nr_symbols = len(self.names)
        self._unknown: dict[int, int] = {}
        self.version = 0
        self._ip_cache = IdCache(self._search_ips)
        self._return_cache = IdCache(self._search_returns)

    @classmethod
    def of_trace(cls, trace: TraceReader | TraceSet) -> SymbolNames:
        """The symbols of a trace; control bytes in names and paths become `?`."""
        paths = [
            printable(module.path.encode("utf-8", "surrogateescape")) for module in trace.modules
        ]
        modules = [
            paths[module] if module != NO_MODULE and module < len(paths) else b""
            for module in trace.symbols["module"].tolist()
        ]
        names = [printable(name) for name in trace.symbol_names]
        return cls(trace.symbols["ip"], trace.symbols["size_bytes"], names, modules)

    def of_ips(self, ips: Addresses) -> Ids:
        """The id of the name of each function entry."""
        return self._ip_cache.of(ips)

    def of_returns(self, parent_ips: Addresses) -> Ids:
        """The id of the name of the function that each return address leads back into.

        Looked up is the byte before it, which belongs to the call: a call that never returns may
        be the last instruction of its function.  The address itself is tried after that, for
        return addresses that no call made (the signal restorer).
        """
        return self._return_cache.of(parent_ips)

    def covers(self, addresses: Addresses) -> NDArray[np.bool_]:
        """Whether each address lies in a symbol."""
        return self._containing(addresses) >= 0

    def forget_unknown(self) -> bool:
        """Whether so many plain addresses had been named that they were dropped."""
        if len(self._unknown) < _MAX_UNKNOWN:
            return False
        self._unknown.clear()
        self.version += 1
        del self.names[self.nr_symbols :]
        del self.modules[self.nr_symbols :]
        self._ip_cache.clear()
        self._return_cache.clear()
        return True

    def matching(self, patterns: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the present names the words choose (symbols/patterns.py), bool[n].

        A module matches by its path, its file name, or that without what follows `.so` or a
        version (`libc` matches /usr/lib/libc.so.6).
        """

        def match(word: Pattern) -> NDArray[np.bool_]:
            pattern = _Words(word)
            texts = [name.decode("utf-8", "surrogateescape") for name in self.names]
            columns = zip(texts, demangle_all(texts), self.modules, strict=True)
            return np.array([pattern.match(*column) for column in columns], np.bool_)

        return choose(patterns, len(self.names), match)

    def has(self, pattern: str) -> bool:
        """Whether a symbol matches the word, or nothing can be said: it is of addresses, matches
        every name, or there are no symbols."""
        if self.nr_symbols == 0 or pattern.startswith(("0x", "*")):
            return True
        return bool(self.matching([pattern])[: self.nr_symbols].any())

    def require(self, pattern: str) -> None:
        """Raise SymbolNotFound, with near names, unless a symbol (or "0x…") matches the glob."""
        if not self.has(pattern):
            known = [name.decode(errors="replace") for name in self.names[: self.nr_symbols]]
            plain = re.sub(r"[*?\[\]^$.]", "", parse(pattern).name)
            near = difflib.get_close_matches(plain, known[:_NEAR_LIMIT], 3, 0.6)
            raise SymbolNotFound(
                f"no function matches {pattern!r}",
                near=tuple(near),
                cause="the trace names no such function",
                remedy=f"near names: {', '.join(near)}" if near else "fentry report --counts",
            )

    def _search_ips(self, ips: Addresses) -> Ids:
        return self._with_unknown(ips, self._containing(ips))

    def _search_returns(self, parent_ips: Addresses) -> Ids:
        ids = self._containing(parent_ips - np.uint64(1))
        ids = np.where(ids < 0, self._containing(parent_ips), ids)
        return self._with_unknown(parent_ips, ids)

    def _with_unknown(self, addresses: Addresses, ids: Ids) -> Ids:
        for place in np.flatnonzero(ids < 0).tolist():
            ids[place] = self._unknown_id(int(addresses[place]))
        return ids

    def _containing(self, addresses: Addresses) -> Ids:
        if not self.nr_symbols:
            return np.full(len(addresses), -1, np.intp)
        place = np.searchsorted(self.starts, addresses, "right") - 1
        near = np.maximum(place, 0)
        inside = (place >= 0) & (addresses - self.starts[near] < self.sizes[near])
        return np.where(inside, near, -1)

    def _unknown_id(self, address: int) -> int:
        found = self._unknown.get(address)
        if found is None:
            found = self._unknown[address] = len(self.names)
            self.names.append(b"0x%08x" % address if address else b"0")  # as the kernel does
            self.modules.append(b"")
            self.version += 1
        return found


class _Words:
    # One word against names and modules as they are in a file: bytes.

    def __init__(self, word: Pattern) -> None:
        self._word = word
        module = translate(word.module or "*")
        self._module = re.compile(module.encode("utf-8", "surrogateescape"))

    def match(self, name: str, plain: str, module: bytes) -> bool:
        if not self._word.matches(name) and (name == plain or not self._means(plain)):
            return False
        if self._word.module is None:
            return True
        file_name = module.rpartition(b"/")[2]
        bare = re.split(rb"[-.][0-9]|\.so", file_name)[0]
        return any(self._module.match(form) for form in (module, file_name, bare))

    def _means(self, plain: str) -> bool:
        return any(self._word.matches(form) for form in (plain, base_name(plain)))


_CONTROL = bytes(byte if byte >= 0x20 and byte != 0x7F else ord("?") for byte in range(256))


def printable(name: bytes) -> bytes:
    """`name` with control bytes replaced by `?`: a target chooses its names, and a terminal or
    a parser of lines must not be led astray by them."""
    return name.translate(_CONTROL)
