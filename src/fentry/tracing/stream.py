"""Stream: calls as they come, one after the other or a table at a time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np

from fentry.tracing.table import Event, Lost, Table

T = TypeVar("T", Event, Table)


def unfold_events(table: Table) -> Iterator[Event]:
    """The events of a table."""
    return iter(table)


def unfold_table(table: Table) -> Iterator[Table]:
    """The table itself, unless it has no events."""
    return iter((table,) if len(table) else ())


class Stream(Generic[T]):
    """An iterator over calls in order of time, made by stream() of a session, trace or file.

        for event in session.stream("libc!malloc", duration=5): ...

    lost       calls that were made and did not come, up to now
    late       events that came after a later one: their thread had been held up for long
    why_ended  in words, once the iteration has ended; "" before

    Whatever it traces is restored at its end, by close(), and when a block is left that it was
    entered as.
    """

    def __init__(
        self,
        tables: Generator[Table, None, str],
        unfold: Callable[[Table], Iterable[T]],
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.lost = Lost()
        self.late = 0
        self.why_ended = ""
        self._tables = tables
        self._thread = threading.get_ident()
        self._unfold: Callable[[Table], Iterable[T]] = unfold
        self._at_end = at_end
        self._now: Iterator[T] = iter(())
        self._newest_ns = np.iinfo(np.int64).min

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while True:
            if (one := next(self._now, None)) is not None:
                return one
            try:
                table = next(self._tables)
            except StopIteration as end:
                self.why_ended = self.why_ended or end.value or ""
                self.close()
                raise StopIteration from None
            except BaseException:
                self.close()
                raise
            self._note(table)
            self._now = iter(self._unfold(table))

    def _note(self, table: Table) -> None:
        self.lost = self.lost.plus(table.lost)
        if len(table) and table.has_time:
            self.late += int(np.searchsorted(table.time_ns, self._newest_ns, "left"))
            self._newest_ns = max(self._newest_ns, int(table.time_ns[-1]))

    def close(self) -> None:
        """End it. Safe to call again."""
        self._tables.close()
        self._at_end()  # where it fails it is there for the next time
        self._at_end = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # `for event in session.stream(): break` is to end as a generator would; but no other thread
        # may stop the target, and that of a trace that reads collects garbage as well.
        if not sys.is_finalizing() and threading.get_ident() == self._thread:
            self.close()
