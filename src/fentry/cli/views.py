"""What stat shows while it counts: nothing, a table each interval, or a screen."""

from __future__ import annotations

import math
import shutil
import sys
import time
from types import TracebackType

from fentry.cli.counting import FunctionLabels, chosen_counts, count_rows
from fentry.cli.outlet import Outlet
from fentry.cli.terminal import Screen
from fentry.dispatch.ops import Ops
from fentry.formats.rates import Rates
from fentry.formats.table import count_table, rate_json
from fentry.formats.top_screen import (
    BLOCKS,
    PLAIN_BLOCKS,
    TopRow,
    TopState,
    nr_rows,
    screen,
)
from fentry.session import Session


class View:
    """Shows nothing. A context manager, left when the target is as it was before.

    due_s  when to call look() next, CLOCK_MONOTONIC; also when one of `fds` is readable
    """

    due_s = math.inf

    def __enter__(self) -> View:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    @property
    def fds(self) -> list[int]:
        """Descriptors that become readable when there is something to do."""
        return []

    def look(self, now: float) -> str:
        """Show what there is to show at CLOCK_MONOTONIC `now`; why to end, "" to go on."""
        return ""

    def finish(self) -> None:
        """Show what came last; nothing is counted any more."""


class Intervals(View):
    """A table, or a line of JSON, for the calls of each interval; the sum of all is every call.

    While nobody reads what was printed, an interval grows.
    """

    def __init__(
        self, session: Session, ops: Ops, outlet: Outlet, seconds: float, *, as_json: bool,
        show_all: bool,
    ) -> None:  # fmt: skip
        self._session, self._ops, self._outlet = session, ops, outlet
        self._seconds, self._as_json, self._show_all = seconds, as_json, show_all
        self._labels = FunctionLabels(session)
        self._rates = Rates(time.monotonic_ns())
        self.due_s = time.monotonic() + seconds

    def look(self, now: float) -> str:
        """Print an interval that is over, if the last one is on its way."""
        if self._outlet.is_gone():
            return "the reader is gone"
        if now >= self.due_s:
            self.due_s = _next(self.due_s, self._seconds, now)
            if self._outlet.has_room():
                self._print()
        return ""

    def finish(self) -> None:
        """Print the rest, an interval that is shorter."""
        if self._outlet.await_room():
            self._print()
        self._outlet.finish()

    def _print(self) -> None:
        rates = self._rates
        rates.look(*chosen_counts(self._session, self._ops), time.monotonic_ns())
        found = rates.rows(all_of_them=self._show_all)
        rows = count_rows(self._labels, [row.ip for row in found], [row.calls for row in found])
        if self._as_json:
            self._outlet.put(rate_json(rows, rates.seconds).encode())
            return
        per_second = rates.calls / rates.seconds
        text = f"# {rates.seconds:.3f} s, {rates.calls} calls, {per_second:.0f} calls/s\n"
        if rows:
            width = shutil.get_terminal_size((100, 25)).columns
            text += count_table(rows, width=width, seconds=rates.seconds)
        self._outlet.put(text.encode("utf-8", "replace"))


class Top(View):
    """The functions that are called most, on a screen that is redrawn each interval."""

    def __init__(self, session: Session, ops: Ops, outlet: Outlet, fd: int, seconds: float) -> None:
        self._session, self._ops, self._outlet, self._seconds = session, ops, outlet, seconds
        self._screen = Screen(outlet, fd)
        self._labels = FunctionLabels(session)
        self._begun_ns = time.monotonic_ns()
        self._rates = Rates(self._begun_ns)
        self._by_total = False
        self._command = session.command
        encoding = (sys.stdout.encoding or "").lower().replace("-", "")
        self._blocks = BLOCKS if encoding == "utf8" else PLAIN_BLOCKS
        self.due_s = time.monotonic() + seconds

    def __enter__(self) -> Top:
        self._screen.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._screen.__exit__(kind, error, trace)

    @property
    def fds(self) -> list[int]:
        """The keyboard."""
        return self._screen.fds

    def look(self, now: float) -> str:
        """Do what keys say, and redraw what has changed."""
        if self._outlet.is_gone():
            return "the terminal is gone"
        self._screen.stop_if_told()
        for key in self._screen.pressed():
            if key in "qQ":
                return "quit"
            if key in "rt":
                self._by_total = key == "t"
                self._screen.is_changed = True
        if now >= self.due_s:
            self.due_s = _next(self.due_s, self._seconds, now)
            self._rates.look(*chosen_counts(self._session, self._ops), time.monotonic_ns())
            self._screen.is_changed = True
        if self._screen.is_changed:
            width, height = self._screen.size()
            self._screen.show(screen(self._state(height), width, height, blocks=self._blocks))
        return ""

    def _state(self, height: int) -> TopState:
        rates, seconds = self._rates, self._rates.seconds or self._seconds
        found = rates.rows(by_total=self._by_total, limit=nr_rows(height))
        labels = self._labels.of([row.ip for row in found])
        rows = [
            TopRow(
                row.calls / seconds, row.calls / max(rates.calls, 1), row.total, row.history,
                name, module,
            )
            for row, (name, module) in zip(found, labels, strict=True)
        ]  # fmt: skip
        members, table = self._ops.members, self._session.functions.table
        traced = int((members & table.traceable).sum())
        return TopState(
            pid=self._session.pid,
            command=self._command,
            seconds=(time.monotonic_ns() - self._begun_ns) / 1e9,
            interval_s=self._seconds,
            per_second=rates.calls / seconds,
            total=rates.total,
            traced=traced,
            refused=int(members.sum()) - traced,
            by="TOTAL" if self._by_total else "CALLS/S",
            rows=rows,
        )


def _next(due_s: float, seconds: float, now: float) -> float:
    # On the grid of intervals; those that were missed are left out.
    return due_s + seconds * (math.floor((now - due_s) / seconds) + 1)
