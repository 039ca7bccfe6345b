"""Table of counts per function, for a terminal or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fentry.events.columns import Events
from fentry.formats.symbol_names import SymbolNames
from fentry.symbols.demangle import demangle_all

_LEAST_NAME_WIDTH = 16
_GAP = 2


class FunctionCount(NamedTuple):
    """Calls of one function; `share` is its part of all calls, 0 to 1."""

    calls: int
    share: float
    function: str
    module: str


class Column(NamedTuple):
    """Cells of a table, ranged to the right in `width` columns of text."""

    head: str
    width: int
    cells: Sequence[str]


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


def count_table(rows: Sequence[FunctionCount], *, width: int, seconds: float | None = None) -> str:
    """The rows as text of at most `width` columns, as `function_table` makes it; for calls within
    `seconds` with one column more, calls per second."""
    numbers = [
        Column("CALLS", 12, [str(row.calls) for row in rows]),
        Column("SHARE", 7, [f"{row.share:.2%}" for row in rows]),
    ]
    if seconds is not None:
        rates = [f"{row.calls / seconds:.0f}" for row in rows]
        numbers.insert(1, Column("CALLS/S", 10, rates))
    functions = [(row.function, row.module) for row in rows]
    return function_table(numbers, functions, width=width)


def function_table(
    numbers: Sequence[Column], functions: Sequence[tuple[str, str]], *, width: int
) -> str:
    """Columns of numbers beside functions and their modules, with a head line.

    Lines have at most `width` columns, unless the numbers alone leave less than 16 for a name and
    6 for a module. Names too wide are clipped in the middle, where C++ names differ least; modules
    are shown by their file name.
    """
    files = [module.rpartition("/")[2] or "-" for _, module in functions]
    file_width = min(max([len("MODULE"), *map(len, files)]), max(width // 4, len("MODULE")))
    fixed = sum(column.width + _GAP for column in numbers) + _GAP + file_width
    longest = max([len("FUNCTION"), *(len(name) for name, _ in functions)])
    name_width = min(longest, max(width - fixed, _LEAST_NAME_WIDTH))
    gap = " " * _GAP
    heads = [f"{column.head:>{column.width}}" for column in numbers]
    lines = [gap.join([*heads, f"{'FUNCTION':<{name_width}}", "MODULE"])]
    for place, ((function, _), file) in enumerate(zip(functions, files, strict=True)):
        cells = [f"{column.cells[place]:>{column.width}}" for column in numbers]
        name = f"{clipped(function, name_width):<{name_width}}"
        lines.append(gap.join([*cells, name, clipped(file, file_width)]))
    return "\n".join(lines) + "\n"


def count_json(rows: Sequence[FunctionCount]) -> str:
    """The rows as a JSON array of objects with calls, share, function and module."""
    return json.dumps([row._asdict() for row in rows], indent=1, ensure_ascii=False) + "\n"


def rate_json(rows: Sequence[FunctionCount], seconds: float) -> str:
    """The calls of an interval as one line of JSON: seconds, calls, and of each function what
    count_json has and per_second."""
    functions = [row._asdict() | {"per_second": round(row.calls / seconds, 3)} for row in rows]
    interval = {
        "seconds": round(seconds, 6), "calls": sum(row.calls for row in rows),
        "functions": functions,
    }  # fmt: skip
    return json.dumps(interval, ensure_ascii=False) + "\n"


def clipped(text: str, width: int) -> str:
    """`text` in at most `width` characters, without its middle where it is longer."""
    if len(text) <= width:
        return text
    front = (width - 1) // 2
    return text[:front] + "~" + text[len(text) - (width - 1 - front) :]
