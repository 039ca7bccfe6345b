"""Text of function events in columns that a person chose: a line of heads, then a line an event.

Not the kernel's lines (fentry.formats.text).  Columns are filled up to a usual width; what is wider
is not clipped, and the last column is not filled up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fentry.errors import BadInput
from fentry.events.columns import Events, TimesNs
from fentry.formats.id_cache import IdCache, Ids, Values
from fentry.formats.lines import Chosen, Computed, Strings, compose
from fentry.formats.symbol_names import SymbolNames
from fentry.formats.task_names import TaskNames
from fentry.formats.text import DIGITS3, PADDED3

_GAP = b"  "
_LEAST_FIRST = 8  # bytes of the first piece of a line: compose() asks for them
_MOST_TEXTS = 1 << 16
_MICROS = 1_000_000
_TIME = "time"


class _Kind(NamedTuple):
    # How wide a column is, and whether it is filled from the left.
    width: int
    is_number: bool = False


COLUMNS = {
    _TIME: _Kind(17, is_number=True),
    "cpu": _Kind(3, is_number=True),
    "task": _Kind(16),
    "tid": _Kind(7, is_number=True),
    "function": _Kind(32),
    "module": _Kind(24),
    "ip": _Kind(18),
    "parent": _Kind(32),
    "parent_ip": _Kind(18),
}
"""The columns by name."""

_OF_PARENTS = {"parent", "parent_ip"}

_Value = Callable[[Events], Values]
_Text = Callable[[int], bytes]
_Split = Callable[[TimesNs], tuple[TimesNs, Values]]


class ColumnText:
    """Turns Events into lines of the columns `names`, a choice of COLUMNS.

    Without `has_time` the column `time` is a count, as in FunctionText. Raises BadInput for a name
    that is not in COLUMNS, for no name, and for a column of parents where records have none.
    """

    def __init__(
        self,
        names: Sequence[str],
        symbols: SymbolNames,
        tasks: TaskNames,
        *,
        has_time: bool = True,
        has_parents: bool = True,
    ) -> None:
        _check(names, has_parents=has_parents)
        self._symbols = symbols
        sources = _sources(symbols, tasks)
        self._columns: list[_Column | _Moments] = []
        for place, name in enumerate(names):
            fill = _Fill(COLUMNS[name], is_first=place == 0, is_last=place == len(names) - 1)
            if name == _TIME:
                self._columns.append(_Moments(fill, *(_TIMES if has_time else _COUNTS)))
            else:
                self._columns.append(_Column(name, fill, *sources[name]))

    def head(self) -> bytes:
        """The line of the columns' names."""
        return b"".join(column.head for column in self._columns)

    def lines(self, events: Events) -> memoryview:
        """The lines of up to LINES_AT_ONCE events or so, in the order of `events`."""
        if self._symbols.forget_unknown():
            for column in self._columns:
                column.forget()
        rows = [column.pieces(events) for column in self._columns]
        pieces: list[Chosen | Computed] = []
        for chosen, computed in rows:
            pieces += [chosen, *computed]
        return compose(rows[0][0], pieces[1:])


class _Fill(NamedTuple):
    # Makes a text as wide as its column, with what follows it.
    kind: _Kind
    is_first: bool
    is_last: bool

    @property
    def end(self) -> bytes:
        return b"\n" if self.is_last else _GAP

    def __call__(self, text: bytes) -> bytes:
        least = _LEAST_FIRST - len(self.end) if self.is_first else 0
        if self.kind.is_number:
            return text.rjust(max(self.kind.width, least)) + self.end
        return text.ljust(least if self.is_last else max(self.kind.width, least)) + self.end


class _Column:
    # Texts that are made once for each value.

    def __init__(self, name: str, fill: _Fill, value: _Value, text: _Text) -> None:
        self.head = fill(name.upper().encode())
        self._value = value
        self._texts = _Texts(lambda one: fill(text(one)))

    def forget(self) -> None:
        self._texts.forget()

    def pieces(self, events: Events) -> tuple[Chosen, list[Computed]]:
        return self._texts.chosen(self._value(events)), []


class _Moments:
    # Times and counts hardly repeat: their last digits are computed.

    def __init__(
        self, fill: _Fill, name: bytes, nr_digits: int, split: _Split, text: _Text
    ) -> None:
        self.head = fill(name)
        self._split = split
        self._end = np.uint64(int.from_bytes(fill.end, "little") << 8 * nr_digits)
        self._length = nr_digits + len(fill.end)
        width = fill.kind.width - nr_digits
        self._texts = _Texts(lambda front: text(_signed(front)).rjust(width))

    def forget(self) -> None:
        self._texts.forget()

    def pieces(self, events: Events) -> tuple[Chosen, list[Computed]]:
        fronts, digits = self._split(events.time_ns)
        words = digits | self._end
        return self._texts.chosen(fronts.view(np.uint64)), [Computed(words, self._length)]


class _Texts:
    # A text for each value, made when it is first met.

    def __init__(self, text: _Text) -> None:
        self._text = text
        self._cache = IdCache(self._search)
        self.forget()

    def forget(self) -> None:
        self._place_of: dict[int, int] = {}
        self._made: list[bytes] = []
        self._strings = Strings([])
        self._cache.clear()

    def chosen(self, values: Values) -> Chosen:
        if len(self._made) > _MOST_TEXTS:
            self.forget()
        index = self._cache.of(values)
        if len(self._strings) != len(self._made):
            self._strings = Strings(self._made)
        return Chosen(self._strings, index)

    def _search(self, values: Values) -> Ids:
        return np.array([self._place(value) for value in values.tolist()], np.intp)

    def _place(self, value: int) -> int:
        if value not in self._place_of:
            self._place_of[value] = len(self._made)
            self._made.append(self._text(value))
        return self._place_of[value]


def _sources(symbols: SymbolNames, tasks: TaskNames) -> dict[str, tuple[_Value, _Text]]:
    # What each column is of, as a number, and the text of that.
    def function(events: Events) -> Values:
        return symbols.of_ips(events.ip).view(np.uint64)

    def parent_ip(events: Events) -> Values:
        return np.zeros(len(events), np.uint64) if events.parent_ip is None else events.parent_ip

    def parent(events: Events) -> Values:
        return symbols.of_returns(parent_ip(events)).view(np.uint64)

    return {
        "cpu": (lambda events: events.cpu.astype(np.uint64), b"%d".__mod__),
        "task": (tasks.keys, lambda key: tasks.unpack(key)[0]),
        "tid": (lambda events: events.tid.astype(np.uint64), b"%d".__mod__),
        "function": (function, lambda place: symbols.names[place]),
        "module": (function, lambda place: symbols.modules[place].rpartition(b"/")[2] or b"-"),
        "ip": (lambda events: events.ip, b"0x%016x".__mod__),
        "parent": (parent, lambda place: symbols.names[place]),
        "parent_ip": (parent_ip, b"0x%016x".__mod__),
    }


def _check(names: Sequence[str], *, has_parents: bool) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or not names:
        what = f"{unknown[0]!r} is no column" if unknown else "no column is named"
        raise BadInput(what, remedy=f"some of {', '.join(COLUMNS)}")
    if not has_parents and _OF_PARENTS.intersection(names):
        raise BadInput("this trace has no parents", cause="it was recorded with --no-parent")


def _split_times(time_ns: TimesNs) -> tuple[TimesNs, Values]:
    # seconds, and micros rounded to the nearest as FunctionText does
    micros = (time_ns + 500) // 1000
    seconds = micros // _MICROS
    milli, micro = np.divmod(micros - seconds * _MICROS, 1000)
    return seconds, DIGITS3[milli] | (DIGITS3[micro] << np.uint64(24))


def _split_counts(counts: TimesNs) -> tuple[TimesNs, Values]:
    thousands, rest = np.divmod(counts, 1000)
    return thousands, np.where(thousands != 0, DIGITS3[rest], PADDED3[rest])


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


_TIMES = b"TIME", 6, _split_times, b"%d.".__mod__
_COUNTS = b"COUNT", 3, _split_counts, lambda thousands: b"%d" % thousands if thousands else b""
