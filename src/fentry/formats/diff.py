"""Calls of each function in two traces, side by side: before and after.

A function is the same in both if its name is and its module is.  Addresses say nothing: a module
lies elsewhere in every process.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fentry.formats.symbol_names import printable
from fentry.formats.table import Column, FunctionCount, function_table
from fentry.formats.tracefile_payloads import Module

_Place = tuple[str, str, bool]  # function, path of its module, whether the module is only after


@dataclass(frozen=True, slots=True)
class Side:
    """What one trace has to say.

    rows     the functions that were called
    builds   the build-id of each module by its path, "" where it has none
    seconds  how long was traced; None if that is not known
    """

    rows: Sequence[FunctionCount]
    builds: Mapping[str, str]
    seconds: float | None


class Change(NamedTuple):
    """Calls of one function on both sides, and calls in a second where the time is known."""

    function: str
    module: str
    before: int
    after: int
    change: int
    before_per_second: float | None
    after_per_second: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Functions that were called on either side, the greatest change first, then by name.

    rebuilt  modules of which the sides have different builds, by their path before; their functions
             were matched by name all the same
    """

    rows: Sequence[Change]
    rebuilt: Sequence[str]


def builds_of(modules: Sequence[Module]) -> dict[str, str]:
    """The build-id of each module of a trace, by its path as FunctionCount has it."""
    paths = [module.path.encode("utf-8", "surrogateescape") for module in modules]
    texts = [printable(path).decode("utf-8", "replace") for path in paths]
    return {text: module.build_id for text, module in zip(texts, modules, strict=True)}


def difference(before: Side, after: Side) -> Difference:
    """What changed from one side to the other. Functions of one name in one module count as one."""
    pairs = pair_modules(before.builds, after.builds)
    before_calls, after_calls = Counter[_Place](), Counter[_Place]()
    for row in before.rows:
        before_calls[row.function, row.module, False] += row.calls
    for row in after.rows:
        path = pairs.get(row.module) if row.module in after.builds else row.module
        place = (row.function, path or row.module, path is None)
        after_calls[place] += row.calls
    rows = []
    for place in dict.fromkeys((*before_calls, *after_calls)):
        first, second = before_calls[place], after_calls[place]
        rates = _rate(first, before.seconds), _rate(second, after.seconds)
        rows.append(Change(place[0], place[1], first, second, second - first, *rates))
    rows.sort(key=lambda row: (-abs(row.change), row.function, row.module))
    called = {row.module for row in rows}
    rebuilt = [
        path
        for other, path in pairs.items()
        if path in called and len({before.builds[path], after.builds[other]} - {""}) > 1
    ]
    return Difference(rows, sorted(rebuilt))


def pair_modules(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """The path before of each path after that is the same module; both map paths to build-ids.

    A module has one pair at most: the one that is most like it. An equal build-id tells most, then
    an equal path, then an equal file name.
    """
    pairs: dict[str, str] = {}
    for likeness in _LIKENESSES:
        paired = set(pairs.values())
        free = {likeness(*one): one[0] for one in before.items() if one[0] not in paired}
        for path, build in after.items():
            if path not in pairs and (found := free.pop(likeness(path, build), None)) is not None:
                pairs[path] = found
    return pairs


def diff_table(rows: Sequence[Change], *, width: int) -> str:
    """The rows as text of at most `width` columns, as `function_table` makes it.

    `-` stands for no calls. Rates are shown if they are known of both sides.
    """
    numbers = [
        Column("BEFORE", 12, [str(row.before or "-") for row in rows]),
        Column("AFTER", 12, [str(row.after or "-") for row in rows]),
        Column("CHANGE", 12, [f"{row.change:+d}" if row.change else "0" for row in rows]),
    ]
    if rows and None not in (rows[0].before_per_second, rows[0].after_per_second):
        numbers += [
            Column("BEFORE/S", 12, [_shown_rate(row.before_per_second) for row in rows]),
            Column("AFTER/S", 12, [_shown_rate(row.after_per_second) for row in rows]),
        ]
    return function_table(numbers, [(row.function, row.module) for row in rows], width=width)


def diff_json(rows: Sequence[Change]) -> str:
    """The rows as a JSON array of objects with the fields of Change; a rate not known is null."""
    return json.dumps([row._asdict() for row in rows], indent=1, ensure_ascii=False) + "\n"


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


# What is equal of modules that are alike, the most telling first; no two without a build-id are
# alike by it.
_LIKENESSES: tuple[Callable[[str, str], object], ...] = (
    lambda path, build: (path, build),
    lambda path, build: (_file_name(path), build or object()),
    lambda path, build: build or object(),
    lambda path, build: path,
    lambda path, build: _file_name(path),
)


def _rate(calls: int, seconds: float | None) -> float | None:
    return None if seconds is None else calls / seconds


def _shown_rate(rate: float | None) -> str:
    return f"{rate:.1f}" if rate else "-"
