"""The full-screen view of counted functions, as lines: what is shown is decided here, and nothing
is written."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fentry.formats.table import clipped

BLOCKS = " ▁▂▃▄▅▆▇█"
PLAIN_BLOCKS = " .:-=+*#@"
"""The same in ASCII, for terminals that show nothing else."""

_HISTORY_WIDTH = 12
_LEAST_NAME_WIDTH = 12
_GAP = "  "
_AROUND = 4  # lines that are no functions
_CONTROL = {code: "?" for code in (*range(0x20), *range(0x7F, 0xA0))}


@dataclass(frozen=True, slots=True)
class TopRow:
    """One function: calls per second now, its part of all calls now (0 to 1), calls in all, calls
    per second in the last intervals, oldest first."""

    per_second: float
    share: float
    total: int
    history: tuple[float, ...]
    function: str
    module: str


@dataclass(frozen=True, slots=True)
class TopState:
    """What there is to show: `rows` in their order, which is that of the column `by` ("CALLS/S" or
    "TOTAL"); `seconds` since it began, of intervals of `interval_s`."""

    pid: int
    command: str
    seconds: float
    interval_s: float
    per_second: float
    total: int
    traced: int
    refused: int
    by: str
    rows: Sequence[TopRow]


def nr_rows(height: int) -> int:
    """How many functions a screen of so many lines has place for."""
    return max(height - _AROUND, 0)


def screen(state: TopState, width: int, height: int, *, blocks: str = BLOCKS) -> list[str]:
    """At most `height` lines of at most `width` columns. What does not fit is left out, the least
    important first: history, module, total, share."""
    columns = _columns(state, width, blocks)
    head = _GAP.join(
        f"{name:>{size}}" if right else f"{name:<{size}}" for name, size, right, _ in columns
    )
    body = [_line(row, columns) for row in state.rows[: nr_rows(height)]]
    lines = [
        f"fentry top  {_clock(state.seconds)}  {state.traced} functions counted, "
        f"{state.refused} refused  {state.pid} {state.command}",
        f"{_number(state.per_second)} calls/s  {state.total} calls  every {state.interval_s:g} s",
        head,
        *body,
        *[""] * (nr_rows(height) - len(body)),
        f"q quits   r by rate   t by total   now by {state.by}",
    ]
    if height < _AROUND:
        lines = lines[:height]
    return [_fitted(line, width) for line in lines]


_Column = tuple[str, int, bool, Callable[[TopRow], str]]


def _columns(state: TopState, width: int, blocks: str) -> list[_Column]:
    # Name, width, whether to the right, and what a row has in it. The function gets what is left.
    module = max([len("MODULE"), *(len(_file(row)) for row in state.rows)])
    module = min(module, max(width // 5, len("MODULE")))
    optional: list[tuple[int, _Column]] = [
        (32, ("SHARE", 6, True, lambda row: f"{row.share:.1%}")),
        (46, ("TOTAL", 12, True, lambda row: f"{row.total}")),
        (80, ("HISTORY", _HISTORY_WIDTH, True, lambda row: spark(row.history, blocks))),
    ]
    columns: list[_Column] = [("CALLS/S", 10, True, lambda row: _number(row.per_second))]
    columns += [column for least, column in optional if width >= least]
    last: list[_Column] = []
    if width >= 64:
        last = [("MODULE", module, False, lambda row: clipped(_file(row), module))]
    taken = sum(size + len(_GAP) for _, size, _, _ in [*columns, *last])
    left = max(width - taken, _LEAST_NAME_WIDTH)
    return [*columns, ("FUNCTION", left, False, lambda row: _named(row, left)), *last]


def _line(row: TopRow, columns: Sequence[_Column]) -> str:
    cells = []
    for _, size, right, text in columns:
        shown = text(row)
        cells.append(f"{shown:>{size}}" if right else shown + " " * (size - columns_of(shown)))
    return _GAP.join(cells)


def _named(row: TopRow, width: int) -> str:
    name = row.function.translate(_CONTROL)
    return clipped(name, width) if name.isascii() else _fitted(name, width)


def _file(row: TopRow) -> str:
    return row.module.rpartition("/")[2].translate(_CONTROL) or "-"


def spark(history: Sequence[float], blocks: str = BLOCKS) -> str:
    """The last 12 values as bars, scaled to the greatest of them; anything above 0 is seen."""
    values = history[-_HISTORY_WIDTH:]
    greatest = max(values, default=0.0)
    steps = len(blocks) - 1
    bars = [
        blocks[max(1, min(steps, round(value / greatest * steps)))] if value > 0 else blocks[0]
        for value in values
    ]
    return "".join(bars).rjust(_HISTORY_WIDTH)


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: Unicode Standard Annex 11 for wide characters,
    none for those that combine with the one before."""
    return sum(map(_width, text))


def _width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _fitted(line: str, width: int) -> str:
    line = line.translate(_CONTROL).rstrip()
    if line.isascii():
        return line[:width]
    while columns_of(line) > width:
        line = line[:-1]
    return line


def _number(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
