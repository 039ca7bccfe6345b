"""Table of counts per function, for a terminal or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fentry.events.columns import Events
from fentry.formats.symbol_names import SymbolNames
from fentry.symbols.demangle import demangle_all

_COUNT_WIDTH = 12
_SHARE_WIDTH = 7
_LEAST_NAME_WIDTH = 16
_GAP = 2


class FunctionCount(NamedTuple):
    """Calls of one function; `share` is its part of all calls, 0 to 1."""

    calls: int
    share: float
    function: str
    module: str


class FunctionCounts:
    """Adds up calls by function ip over any number of Events; memory grows by functions."""

    def __init__(self, symbols: SymbolNames) -> None:
        self._symbols = symbols
        self._counts = np.zeros(0, np.int64)

    def add(self, events: Events) -> None:
        """Count these events too."""
        ids = self._symbols.of_ips(events.ip)
        counts = np.bincount(ids, minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts

    def rows(self) -> list[FunctionCount]:
        """The functions that were called, most calls first, then by name and module."""
        total = max(int(self._counts.sum()), 1)
        called = np.flatnonzero(self._counts).tolist()
        names = demangle_all(
            self._symbols.names[place].decode("utf-8", "replace") for place in called
        )
        rows = [
            FunctionCount(
                calls := int(self._counts[place]),
                calls / total,
                name,
                self._symbols.modules[place].decode("utf-8", "replace"),
            )
            for place, name in zip(called, names, strict=True)
        ]
        return sorted(rows, key=lambda row: (-row.calls, row.function, row.module))


def count_table(rows: Sequence[FunctionCount], *, width: int) -> str:
    """The rows as aligned text of at most `width` columns (never less than 50), with a head line.

    Names too wide are clipped in the middle, where C++ names differ least; modules are shown
    by their file name.
    """
    files = [row.module.rpartition("/")[2] or "-" for row in rows]
    file_width = min(max([len("MODULE"), *map(len, files)]), max(width // 4, len("MODULE")))
    fixed = _COUNT_WIDTH + _SHARE_WIDTH + 3 * _GAP + file_width
    longest = max([len("FUNCTION"), *(len(row.function) for row in rows)])
    name_width = min(longest, max(width - fixed, _LEAST_NAME_WIDTH))
    gap = " " * _GAP
    lines = [
        f"{'CALLS':>{_COUNT_WIDTH}}{gap}{'SHARE':>{_SHARE_WIDTH}}{gap}"
        f"{'FUNCTION':<{name_width}}{gap}MODULE"
    ]
    for row, file in zip(rows, files, strict=True):
        name = _clipped(row.function, name_width)
        lines.append(
            f"{row.calls:>{_COUNT_WIDTH}}{gap}{row.share:>{_SHARE_WIDTH}.2%}{gap}"
            f"{name:<{name_width}}{gap}{_clipped(file, file_width)}"
        )
    return "\n".join(lines) + "\n"


def count_json(rows: Sequence[FunctionCount]) -> str:
    """The rows as a JSON array of objects with calls, share, function and module."""
    return json.dumps([row._asdict() for row in rows], indent=1, ensure_ascii=False) + "\n"


def _clipped(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    front = (width - 1) // 2
    return text[:front] + "~" + text[len(text) - (width - 1 - front) :]
