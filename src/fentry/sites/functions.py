"""The functions of a target: its modules, their names, and their sites as far as asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput, SymbolNotFound
from fentry.process.maps import read_maps
from fentry.process.target import Target
from fentry.sites.cached import analyse_cached
from fentry.sites.site import Reason, SiteKind, refuse_all
from fentry.sites.table import SiteTable
from fentry.symbols.ifuncs import implementations
from fentry.symbols.module import Module, code_of, load_modules
from fentry.symbols.patterns import Pattern, choose, parse
from fentry.symbols.table import SymbolTable, is_called

# struct pthread: tid, of glibc 2.x and of musl 1.2 on x86-64
STATIC_TID_OFFSETS = {"__libc_setup_tls": 0x2D0, "__init_tp": 0x30}


class Functions:
    """The functions of a target: modules, names, sites. Made without touching the target.

    The sites of a module are looked for when somebody asks for one of its functions (match), or
    for all (analyse). Modules of `before` that are unloaded by now stay, without sites, so that
    what was seen of them has a name; unless something else lies there.
    """

    def __init__(self, pid: int, target: Target, before: Functions | None = None) -> None:
        maps = read_maps(pid)
        found = load_modules(pid, maps, target.memory.read_some)
        self.modules: list[Module] = [module for module in found if _has_functions(module)]
        self.code = code_of(maps)
        self.blockers: dict[int, int] = {}  # ip of a refused function -> what is in the way
        self._shared = [(m.start, m.end) for m in maps if m.executable and m.shared]
        loaded = {module.key for module in self.modules}
        known = before.loaded_keys if before else loaded
        self.fresh = [module for module in self.modules if module.key not in known]
        self.has_changed = loaded != known
        self._nr_loaded = len(self.modules)
        self.modules += [
            module
            for module in (before.modules if before else [])
            if module.key not in loaded and not any(map(module.overlaps, self.modules))
        ]
        self.symbols = SymbolTable(
            self.modules, implementations(self.modules, target.memory.read_some)
        )
        rows = [module.image.functions.rows for module in self.modules]
        self.table = SiteTable.build(
            [
                (module.bias, refuse_all(own["vaddr"], own["size"], Reason.NOT_ANALYSED))
                for module, own in zip(self.modules, rows, strict=True)
            ]
        )
        for number, module in enumerate(self.modules):
            if module.image.memory_bias is not None:
                self.table.from_memory[self.table.module == number] = True
        self._pending = set(range(self._nr_loaded))
        self.refuse_unloaded()

    @property
    def loaded_keys(self) -> set[tuple[str, int, str]]:
        """Which modules are loaded."""
        return {module.key for module in self.modules[: self._nr_loaded]}

    def refuse_unloaded(self) -> None:
        """Nothing of modules that are no longer loaded can be patched."""
        gone = self.table.module >= self._nr_loaded
        self.table.kind[gone] = SiteKind.REFUSED
        self.table.reason[gone] = Reason.UNLOADED

    def analyse(self, chosen: NDArray[np.bool_] | None = None) -> None:
        """Find the sites of all modules, or of those of the `chosen` functions: bool[n]."""
        wanted = self.table.module if chosen is None else self.table.module[chosen]
        for number in self._pending.intersection(np.unique(wanted).tolist()):
            module = self.modules[number]
            found = analyse_cached(module)
            self.table.fill(number, module.bias, found)
            self.blockers |= {e + module.bias: at + module.bias for e, at in found.blockers.items()}
            self._pending.discard(number)
        self._refuse_shared()

    def _refuse_shared(self) -> None:
        # What is written into a shared mapping is seen by others, and reaches the file.
        for low, high in self._shared:
            inside = (self.table.patch >= np.uint64(low)) & (self.table.patch < np.uint64(high))
            inside &= self.table.traceable
            self.table.kind[inside] = SiteKind.REFUSED
            self.table.reason[inside] = Reason.SHARED

    def analyse_at(self, ips: NDArray[np.uint64]) -> None:
        """Find the sites of the modules that have functions at these ips."""
        rows = self.table.rows_of(ips)
        chosen = np.zeros(len(self.table), np.bool_)
        chosen[rows[rows >= 0]] = True
        self.analyse(chosen)

    @property
    def is_static(self) -> bool:
        """Whether the target has no dynamic linker: it may not have set up its threads yet."""
        return not any(module.short.startswith(("ld-", "libc")) for module in self.modules)

    def static_tid_offset(self) -> int | None:
        """Where its C library will keep a thread's tid, told by a function that only it has."""
        for name, offset in STATIC_TID_OFFSETS.items():
            if len(self.symbols.match(name)):
                return offset
        return None

    def match(
        self, wanted: Sequence[str], notrace: Sequence[str], *, lenient: bool = False
    ) -> NDArray[np.bool_]:
        """Which functions the words choose (symbols/patterns.py): bool[n] over the table's rows.
        Finds their sites.

        Raises SymbolNotFound when a wanted word matches nothing, names no library that may still
        be loaded (not_loaded), and unless `lenient`; BadInput when malformed.
        """

        def match(pattern: Pattern) -> NDArray[np.bool_]:
            found = self._matches(pattern)
            if pattern.removes or lenient or (found | as_part(pattern)).any():
                return found & (not pattern.part)
            if not self._may_come(pattern):
                raise no_match(pattern.text, self.symbols)
            return found & (not pattern.part)

        def as_part(pattern: Pattern) -> NDArray[np.bool_]:
            return self._matches(pattern, parts=True)

        functions = choose(wanted, len(self.table), match)
        parts = choose(wanted, len(self.table), as_part, from_all=False)
        for pattern in map(parse, notrace):
            functions &= ~self._matches(pattern) | pattern.part
            parts &= ~self._matches(pattern, parts=True)
        self.analyse(functions | parts)
        return either(self.table, functions, parts, wanted, lenient=lenient)

    def not_loaded(self, wanted: Sequence[str], *, ever: bool = False) -> tuple[str, ...]:
        """The libraries that words name and that are not loaded, or with `ever` never were as far
        as was seen: globs with ".so" in them."""
        count = None if ever else self._nr_loaded
        return tuple(
            dict.fromkeys(
                pattern.module
                for pattern in map(parse, wanted)
                if pattern.module is not None and self._may_come(pattern, count)
            )
        )

    def _may_come(self, pattern: Pattern, count: int | None = None) -> bool:
        # Whether a word names a library that is none of the first `count` modules: by a file name,
        # so that a word that is merely misspelt is an error.
        name = pattern.module
        if name is None or pattern.removes or ".so" not in name or self.is_static:
            return False
        return not any(is_called(module, name) for module in self.modules[:count])

    def settled(self, words: Sequence[str]) -> tuple[str, ...]:
        """The same words with addresses for numbers: another library may change the count."""
        return tuple(self._settle(parse(word)) for word in words)

    def _settle(self, pattern: Pattern) -> str:
        if pattern.index is None:
            return pattern.text
        rows = np.flatnonzero(self._matches(pattern))
        if not len(rows):
            raise no_match(pattern.text, self.symbols)
        return "!" * pattern.removes + hex(int(self.table.ip[rows[0]]))

    def _matches(self, pattern: Pattern, *, parts: bool = False) -> NDArray[np.bool_]:
        found = np.zeros(len(self.table), np.bool_)
        if pattern.index is not None:
            self.analyse()
            found[traceable_row(self.table, pattern.index)] = True
            return found
        match = self.symbols.match_parts if parts else self.symbols.match
        rows = self.table.rows_of(np.asarray(match(pattern.text), np.uint64))
        found[rows[rows >= 0]] = True
        return found


def either(
    table: SiteTable,
    functions: NDArray[np.bool_],
    parts: NDArray[np.bool_],
    words: Sequence[str],
    *,
    lenient: bool = False,
) -> NDArray[np.bool_]:
    """Of `functions`, which would be chosen if all rows were functions, those that are; of `parts`
    those that are parts of such: bool[n].

    Raises SymbolNotFound, unless `lenient`, where that leaves nothing of what the words matched.
    """
    chosen = np.where(table.part, parts, functions)
    if not lenient and not chosen.any() and (functions | parts).any():
        raise _other_kind(words[0] if words else "*")
    return chosen


def traceable_row(table: SiteTable, index: int) -> NDArray[np.int64]:
    """The row of the function with this index, from 1, among those that can be traced; or none."""
    return np.flatnonzero(table.traceable)[index - 1 : index] if index else np.empty(0, np.int64)


def _other_kind(word: str) -> SymbolNotFound:
    if parse(word).part:
        return SymbolNotFound(
            f"{word!r} matches functions only", cause="none of them is a part of another"
        )
    return SymbolNotFound(
        f"{word!r} matches parts of functions only",
        cause="jumps enter them in the middle of a call",
        remedy=f"part:{word.removeprefix('!')}",
    )


def no_match(word: str, symbols: SymbolTable) -> SymbolNotFound:
    """The error for a word that means no function of these, or no module."""
    module = parse(word).module
    if module is not None and not any(is_called(one, module) for one in symbols.modules):
        near = symbols.near_modules(module)
        remedy = [f"near names: {', '.join(near)}"] if near else []
        if ".so" not in module:
            remedy.append(f"'{module}.so!...' traces what is loaded later")
        return SymbolNotFound(
            f"no function matches {word!r}",
            near=tuple(near),
            cause=f"no module {module!r} is mapped",
            remedy="; ".join(remedy) or "fentry list -p PID",
        )
    near = symbols.near(word)
    return SymbolNotFound(
        f"no function matches {word!r}",
        near=tuple(near),
        cause="no module of the target has it",
        remedy=f"near names: {', '.join(near)}" if near else "fentry list -p PID",
    )


def _has_functions(module: Module) -> bool:
    """Whether the tables of a module are sound; one that is damaged is left out."""
    try:
        return len(module.image.functions) >= 0
    except BadInput:
        return False
