"""Calls by function: a mapping that a test can compare, and a table that a person can read."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice

from fentry.errors import SymbolNotFound
from fentry.formats.table import FunctionCount, count_table
from fentry.tracing.functions import Function, chosen
from fentry.tracing.html import counts_html

_SHOWN = 10
_WIDTH = 100
_NEAR_LIMIT = 20_000


class NotTraced(SymbolNotFound, KeyError):
    """What was asked for was not traced: `in` and get() take it for the KeyError that it is."""


class Counts(Mapping[str, int]):
    """How often each function was called, most calls first.

        counts["f"]            calls of f; 0 if it was traced and not called
        counts["libc!mem*"]    of all functions that a word of a filter means, together
        counts == {"f": 2}     f was called twice, and no other function that was traced
        sorted(counts)         the functions that were called

    A function has its name for a key, MODULE!NAME where several are called so, and NAME@0xIP
    where that is not enough. `counts["g"]` raises SymbolNotFound, a KeyError, with near names when
    nothing like it was traced: a misspelt name is never 0 calls.
    """

    def __init__(self, functions: Sequence[Function], calls: Sequence[int]) -> None:
        rows = zip(functions, calls, strict=True)
        self._rows = sorted(rows, key=lambda row: (-row[1], row[0].name, row[0].module, row[0].ip))

    @property
    def total(self) -> int:
        """Calls of all functions."""
        return sum(calls for _, calls in self._rows)

    @property
    def functions(self) -> list[Function]:
        """Those that were traced, called or not."""
        return [function for function, _ in self._rows]

    def __getitem__(self, word: str) -> int:
        if word in self._by_key:
            return self._by_key[word]
        found = chosen([word], self.functions)
        if not found.any():
            raise self._no_match(word)
        calls = zip(self._rows, found.tolist(), strict=True)
        return sum(count for (_, count), is_meant in calls if is_meant)

    def __iter__(self) -> Iterator[str]:
        return (key for key, calls in self._by_key.items() if calls)

    def __len__(self) -> int:
        return sum(calls > 0 for _, calls in self._rows)

    def __repr__(self) -> str:
        shown = ", ".join(f"{key!r}: {calls}" for key, calls in islice(self.items(), _SHOWN))
        return f"Counts({{{shown}{', ...' if len(self) > _SHOWN else ''}}})"

    def __str__(self) -> str:
        return count_table(self.rows(), width=_WIDTH).rstrip("\n")

    def _repr_html_(self) -> str:
        return counts_html(self.rows())

    def rows(self) -> list[FunctionCount]:
        """The functions that were called, with their share of all calls."""
        total = max(self.total, 1)
        return [
            FunctionCount(calls, calls / total, function.name, function.module)
            for function, calls in self._rows
            if calls
        ]

    @cached_property
    def _by_key(self) -> dict[str, int]:
        keys = [function.name for function, _ in self._rows]
        for form in ("{0.module}!{0.name}", "{0.name}@{0.ip:#x}"):
            often = Counter(keys)
            pairs = zip(keys, self.functions, strict=True)
            keys = [form.format(one) if often[key] > 1 else key for key, one in pairs]
        return {key: calls for key, (_, calls) in zip(keys, self._rows, strict=True)}

    def _no_match(self, word: str) -> NotTraced:
        known = [function.name for function in self.functions[:_NEAR_LIMIT]]
        plain = word.rpartition("!")[2].strip("*")
        near = difflib.get_close_matches(plain, known, 3, 0.6)
        return NotTraced(
            f"no function that was traced matches {word!r}",
            near=tuple(near),
            cause="calls of what was not traced are not known",
            remedy=f"near names: {', '.join(near)}" if near else "another filter",
        )
