"""Functions as a person names them: what events are of, by number, and which of them words mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Addresses
from fentry.formats.id_cache import IdCache, Ids
from fentry.symbols.demangle import base_name
from fentry.symbols.module import short_name
from fentry.symbols.patterns import COLD, Pattern, choose


class Function(NamedTuple):
    """A function: its name as its source has it, the file it is in ("" if that is not known), and
    where it begins in the target. Of an address in no function the name is the address."""

    name: str
    module: str
    ip: int


class FunctionIds:
    """Small numbers for the functions of addresses, for whole columns at a time.

    `containing` gives the function that each of some distinct addresses lies in. `functions` are
    those met so far, by number.
    """

    def __init__(self, containing: Callable[[Addresses], Sequence[Function]]) -> None:
        self.functions: list[Function] = []
        self._containing = containing
        self._numbers: dict[int, int] = {}
        self._entries = IdCache(self._of_entries)
        self._returns = IdCache(self._of_returns)

    def of_ips(self, ips: Addresses) -> Ids:
        """The numbers of the functions that these are the entries of."""
        return self._entries.of(ips)

    def of_returns(self, parent_ips: Addresses) -> Ids:
        """The numbers of the functions that these return addresses lead back into: of the byte
        before each, which belongs to the call (formats/symbol_names.py)."""
        return self._returns.of(parent_ips)

    def _of_entries(self, ips: Addresses) -> Ids:
        return self._numbered(self._containing(ips))

    def _of_returns(self, parent_ips: Addresses) -> Ids:
        found = list(self._containing(parent_ips - np.uint64(1)))
        nameless = [place for place, function in enumerate(found) if not function.module]
        again = self._containing(parent_ips[nameless])
        for place, function in zip(nameless, again, strict=True):
            found[place] = function
        return self._numbered(found)

    def _numbered(self, functions: Sequence[Function]) -> Ids:
        ids = np.empty(len(functions), np.intp)
        for place, function in enumerate(functions):
            number = self._numbers.setdefault(function.ip, len(self.functions))
            if number == len(self.functions):
                self.functions.append(function)
            ids[place] = number
        return ids


def chosen(words: Sequence[str], functions: Sequence[Function]) -> NDArray[np.bool_]:
    """Which of some functions the words mean (symbols/patterns.py), bool[n]; an index means none.

    Raises BadInput for malformed words.
    """

    def match(pattern: Pattern) -> NDArray[np.bool_]:
        found = [_is_meant(pattern, function) for function in functions]
        return np.array(found, np.bool_)

    return choose(words, len(functions), match)


def _is_meant(pattern: Pattern, function: Function) -> bool:
    if pattern.address is not None:
        return function.ip == pattern.address
    if pattern.module is not None and not _is_in(function.module, pattern.module):
        return False
    name = function.name
    if pattern.part:
        return bool(COLD.search(name)) and pattern.matches(COLD.split(name)[0])
    return pattern.matches(name) or pattern.matches(base_name(name))


def _is_in(module: str, wanted: str) -> bool:
    short = short_name(module)
    names = (module, short, f"{short}.so") if short != module else (module,)
    return any(name == wanted or fnmatchcase(name, wanted) for name in names)
