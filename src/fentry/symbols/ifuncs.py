"""What the indirect functions of a process were resolved to: memcpy, and the code it is.

The dynamic linker asks each resolver once and keeps the answer where a relocation says: of
R_X86_64_IRELATIVE in the file itself, of the symbol's relocations in the files that use it (x86-64
psABI 4.4.1). Read from there, not found out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fentry.symbols.module import Module, Read

_LARGEST_GAP = 1 << 16


def implementations(modules: Sequence[Module], read: Read) -> dict[int, tuple[str, ...]]:
    """Entries (ips) of functions that indirect functions stand for -> the names of those, sorted.

    `read(address, count)` gives what is mapped of the target's memory. An indirect function that
    nobody uses yet is in no answer.
    """
    wanted: dict[str, set[int]] = {}  # name -> the modules that have it
    for number, module in enumerate(modules):
        for names in module.image.functions.ifuncs.values():
            for name in names:
                wanted.setdefault(name, set()).add(number)
    if not wanted:
        return {}
    found: dict[int, set[str]] = {}
    for module in modules:
        places, names_at = _places(module, wanted)
        for names, value in zip(names_at, _words(places, read).tolist(), strict=True):
            for name in names:
                if any(_begins(modules[home], value) for home in wanted[name]):
                    found.setdefault(value, set()).add(name)
    return {ip: tuple(sorted(names, key=lambda n: (len(n), n))) for ip, names in found.items()}


def _places(
    module: Module, wanted: dict[str, set[int]]
) -> tuple[NDArray[np.uint64], list[list[str]]]:
    """Addresses that hold the answer for each of some names, in order."""
    own = module.image.functions.ifuncs
    places = {}
    for offset, resolver in module.image.irelative:
        if resolver in own:
            places[offset + module.bias] = own[resolver]
    for offset, name in module.image.symbol_slots:
        if name in wanted:
            places[offset + module.bias] = [name]
    ordered = sorted(places)
    return np.array(ordered, np.uint64), [places[place] for place in ordered]


def _words(places: NDArray[np.uint64], read: Read) -> NDArray[np.uint64]:
    """The 8 bytes at each address, 0 where nothing is mapped; neighbours are read together."""
    values = np.zeros(len(places), np.uint64)
    for first, end in _runs(places):
        start = int(places[first])
        raw = read(start, int(places[end - 1]) + 8 - start)
        at = (places[first:end] - np.uint64(start)).astype(np.int64)
        at = at[at + 8 <= len(raw)]
        rows = np.frombuffer(raw, np.uint8)[at[:, None] + np.arange(8)]
        values[first : first + len(at)] = np.ascontiguousarray(rows).view("<u8").ravel()
    return values


def _runs(places: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    if len(places):
        gaps = np.flatnonzero(np.diff(places) > _LARGEST_GAP) + 1
        yield from pairwise([0, *gaps.tolist(), len(places)])


def _begins(module: Module, ip: int) -> bool:
    """Whether a function of the module begins at an address."""
    vaddrs = module.image.functions.rows["vaddr"]
    vaddr = np.uint64((ip - module.bias) % (1 << 64))
    row = int(np.searchsorted(vaddrs, vaddr))
    return row < len(vaddrs) and bool(vaddrs[row] == vaddr)
