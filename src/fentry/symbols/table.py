"""Names of all functions of a target: from pattern to ips, from ip to name."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fentry.symbols.demangle import base_name, demangle, demangle_all
from fentry.symbols.functions import NO_TABLE, RESOLVER
from fentry.symbols.module import Module
from fentry.symbols.patterns import COLD, Pattern, parse

_NEAR_LIMIT = 20_000


class SymbolTable:
    """The functions of modules, by ip (function entry, target address) and by name.

    `also`: further names of some, by ip: what the indirect functions of the process are.
    """

    def __init__(
        self, modules: Sequence[Module], also: Mapping[int, tuple[str, ...]] | None = None
    ) -> None:
        self.modules = list(modules)
        self._also = dict(also or {})
        counts = [len(module.image.functions) for module in self.modules]
        rows = [
            module.image.functions.rows["vaddr"] + np.uint64(module.bias % (1 << 64))
            for module in self.modules
        ]
        sizes = [module.image.functions.rows["size"] for module in self.modules]
        ips = np.concatenate(rows) if rows else np.empty(0, np.uint64)
        order = np.argsort(ips, kind="stable")
        self._ip = ips[order]
        self._size = (np.concatenate(sizes) if sizes else np.empty(0, np.uint64))[order]
        self._module = np.repeat(np.arange(len(counts)), counts)[order]
        starts = np.concatenate([np.arange(count) for count in counts]) if counts else ips
        self._row = starts.astype(np.int64)[order]
        self._matched: dict[str, NDArray[np.uint64]] = {}
        self._matched_parts: dict[str, NDArray[np.uint64]] = {}

    def __len__(self) -> int:
        return len(self._ip)

    def resolve(self, ip: int) -> tuple[str, int, Module | None]:
        """(name, offset in the function, module) of an address; ("0x...", 0, None) if unknown."""
        i = int(np.searchsorted(self._ip, np.uint64(ip), side="right")) - 1
        if i < 0 or ip - int(self._ip[i]) >= max(int(self._size[i]), 1):
            return f"{ip:#x}", 0, None
        module = self.modules[int(self._module[i])]
        name = self.name_of(module, int(self._row[i]))
        return demangle(name), ip - int(self._ip[i]), module

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Which function each address lies in, to ask named() for: int64[n], -1 for none."""
        if not len(self._ip):
            return np.full(len(addresses), -1, np.int64)
        place = np.searchsorted(self._ip, addresses, side="right") - 1
        near = np.maximum(place, 0)
        size = np.maximum(self._size[near], np.uint64(1))
        inside = (place >= 0) & (addresses - self._ip[near] < size)
        return np.where(inside, near, -1).astype(np.int64)

    def named(self, place: int) -> tuple[str, Module]:
        """The name, mangled, and the module of a function that find() has found."""
        module = self.modules[int(self._module[place])]
        return self.name_of(module, int(self._row[place])), module

    def names_at(self, ips: NDArray[np.uint64]) -> list[str]:
        """The names of the functions that begin at `ips`, as resolve() gives them."""
        places = np.searchsorted(self._ip, ips)
        pairs = zip(self._module[places].tolist(), self._row[places].tolist(), strict=True)
        names = (self.name_of(self.modules[module], row) for module, row in pairs)
        return list(demangle_all(names))

    def name_of(self, module: Module, row: int) -> str:
        """The name of a function of a module, mangled: a symbol's rather than an address."""
        functions = module.image.functions
        if functions.rows["table"][row] == NO_TABLE:
            also = self._also.get(int(functions.rows["vaddr"][row]) + module.bias)
            if also:
                return also[0]
        return functions.names[row]

    def other_names(self, ip: int) -> list[str]:
        """What else the function that begins at `ip` is called: aliases, folded functions."""
        i = int(np.searchsorted(self._ip, np.uint64(ip)))
        module, row = self.modules[int(self._module[i])], int(self._row[i])
        functions = module.image.functions
        names = [functions.names[row], *functions.aliases.get(row, ()), *self._also.get(ip, ())]
        shown = demangle(self.name_of(module, row))
        return [name for name in dict.fromkeys(map(demangle, names)) if name != shown]

    def match(self, pattern: str) -> NDArray[np.uint64]:
        """The ips of functions that a word of a filter means: uint64[n] sorted.

        A name matches as it is in the symbol table, demangled, or demangled without parameters;
        a module by file name or without its version (libc). Raises BadInput when malformed.
        The array is shared with whoever asks again: not to be changed. Words: patterns.py; a
        number means nothing here, nor does whether the word removes.
        """
        if pattern not in self._matched:
            self._matched[pattern] = self._match(pattern)
        return self._matched[pattern]

    def _match(self, pattern: str) -> NDArray[np.uint64]:
        word = parse(pattern)
        if word.address is not None:
            known: bool = np.isin(np.uint64(word.address), self._ip).item()
            return np.array([word.address] if known else [], np.uint64)
        if word.index is not None:
            return np.empty(0, np.uint64)
        return self._in_modules(word, lambda module: self._matches(module, word.matches))

    def match_parts(self, pattern: str) -> NDArray[np.uint64]:
        """The ips that a word of a filter means where there are parts of functions: uint64[n]
        sorted, as match()."""
        word = parse(pattern)
        if (word.removes and not word.part) or word.address is not None:
            return self.match(pattern)
        if pattern not in self._matched_parts:
            found = self._in_modules(word, lambda module: _parts_of(module, word))
            if word.part:
                found = np.union1d(found, self.match(pattern))
            self._matched_parts[pattern] = found
        return self._matched_parts[pattern]

    def _in_modules(
        self, word: Pattern, match: Callable[[Module], NDArray[np.uint64]]
    ) -> NDArray[np.uint64]:
        found = [
            match(module)
            for module in self.modules
            if word.module is None or is_called(module, word.module)
        ]
        found = [ips for ips in found if len(ips)]
        return np.sort(np.concatenate(found)) if found else np.empty(0, np.uint64)

    def near(self, pattern: str, n: int = 3) -> list[str]:
        """At most `n` names that look like the pattern's."""
        plain = re.sub(r"[*?\[\]!^$.]", "", parse(pattern).name)
        some = [known for known in self._known if plain[:2] in known][:_NEAR_LIMIT]
        near = difflib.get_close_matches(plain, some, n, 0.6)
        resolver = plain + RESOLVER  # of a function that nobody has asked for yet
        return [resolver, *near][:n] if plain and len(self.match(resolver)) else near

    def near_modules(self, wanted: str, n: int = 3) -> list[str]:
        """At most `n` names of modules that look like the module of a pattern."""
        plain = re.sub(r"[*?\[\]]", "", wanted)
        known = {name: module.name for module in self.modules for name in _names(module)}
        near = difflib.get_close_matches(plain, known, n, 0.6)
        return list(dict.fromkeys(known[name] for name in near))

    @cached_property
    def _known(self) -> list[str]:
        names = {name for module in self.modules for name in module.image.functions.names}
        return sorted(names.union(*self._also.values()))

    def _matches(self, module: Module, regex: Callable[[str], bool]) -> NDArray[np.uint64]:
        functions = module.image.functions
        rows = _rows_named(functions.names, regex)
        rows |= {row for row, names in functions.aliases.items() if any(map(regex, names))}
        chosen = np.array(sorted(rows), np.int64)
        ips: NDArray[np.uint64] = functions.rows["vaddr"][chosen] + np.uint64(
            module.bias % (1 << 64)
        )
        also = [
            ip
            for ip, names in self._also.items()
            if module.text_low <= ip < module.text_high and any(map(regex, names))
        ]
        return np.union1d(ips, np.array(also, np.uint64)) if also else ips


def _parts_of(module: Module, word: Pattern) -> NDArray[np.uint64]:
    # The ips of what a word means by name: parts as they are printed or, of part:WORD, those of the
    # functions that it matches.
    functions = module.image.functions
    parts = [row for row, name in enumerate(functions.names) if COLD.search(name)]
    names = [functions.names[row] for row in parts]
    if word.part:
        homes = [COLD.split(name)[0] for name in names]
        rows = [parts[i] for i in sorted(_rows_named(homes, word.matches))]
    else:
        rows = [
            row
            for row, name in zip(parts, names, strict=True)
            if name == word.name or (name[:2] in ("_Z", "_R") and demangle(name) == word.name)
        ]
    ips: NDArray[np.uint64] = functions.rows["vaddr"][rows] + np.uint64(module.bias % (1 << 64))
    return ips


def _rows_named(names: Sequence[str], regex: Callable[[str], bool]) -> set[int]:
    # Where a name matches as it is, or as its source has it.
    rows = {row for row, name in enumerate(names) if regex(name)}
    mangled = [
        row for row, name in enumerate(names) if name[:2] in ("_Z", "_R") and row not in rows
    ]
    plain = demangle_all(names[row] for row in mangled)
    return rows | {row for row, name in zip(mangled, plain, strict=True) if _means(name, regex)}


def _means(plain: str, regex: Callable[[str], bool]) -> bool:
    return regex(plain) or regex(base_name(plain))


def is_called(module: Module, wanted: str) -> bool:
    """Whether a pattern's module means this one: "libc", "libc.so" or "libc.so.6" is the C library,
    "[vdso]" what it is."""
    return any(name == wanted or fnmatch.fnmatchcase(name, wanted) for name in _names(module))


def _names(module: Module) -> tuple[str, ...]:
    unversioned = (f"{module.short}.so",) if module.short != module.name else ()
    return module.name, module.short, module.path, *unversioned
