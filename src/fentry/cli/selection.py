"""Which events of a trace a command shows: by function, module, thread and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from fentry.cli.options import patterns
from fentry.errors import BadInput
from fentry.events.clock import NS_PER_SECOND
from fentry.events.columns import Addresses, Events
from fentry.formats.symbol_names import SymbolNames
from fentry.formats.task_names import TaskNames
from fentry.formats.tracefile import TraceReader, TraceSet
from fentry.symbols.patterns import parse

input_option = click.option(
    "-i", "--input", "path", default="trace.fentry", show_default=True, help="Trace file, or -."
)
_LONGEST_S = 1e9  # 30 years after boot
_NEVER = 1 << 63
_OPTIONS = (
    click.option(
        "-F", "--filter", "wanted", multiple=True, help="Only functions matching this glob."
    ),
    click.option("-N", "--notrace", "unwanted", multiple=True, help="No functions matching it."),
    click.option(
        "--tid", "tids", multiple=True, type=click.IntRange(0, 1 << 22), help="Only this thread."
    ),
    click.option(
        "--thread", "threads", multiple=True, metavar="GLOB", help="Only threads of such a name."
    ),
    click.option(
        "--since", metavar="SECONDS", type=float,
        help="Only events from this time on, as the report prints it.",
    ),
    click.option("--until", metavar="SECONDS", type=float, help="Only events before this time."),
    click.option("--head", type=click.IntRange(min=0), help="Only the first so many events."),
)  # fmt: skip


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `Selection` takes by name, on a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class Selection:
    """The chosen events of a trace; `shown` counts those it let through.

    `since` and `until` are seconds of CLOCK_MONOTONIC. Raises SymbolNotFound for a word of `wanted`
    that no function has, here or `elsewhere`, with near names, and BadInput for words that are none
    and for times of a trace without them.
    """

    def __init__(
        self,
        trace: TraceReader | TraceSet,
        symbols: SymbolNames,
        tasks: TaskNames,
        *,
        wanted: tuple[str, ...] = (),
        unwanted: tuple[str, ...] = (),
        tids: tuple[int, ...] = (),
        threads: tuple[str, ...] = (),
        since: float | None = None,
        until: float | None = None,
        head: int | None = None,
        elsewhere: SymbolNames | None = None,
        whole_span: bool = False,
    ) -> None:
        self._trace = trace
        self._symbols = symbols
        self._tasks = tasks
        self._wanted, self._unwanted = patterns(wanted), patterns(unwanted)
        for word in (*self._wanted, *self._unwanted):
            parse(word)
        for word in self._wanted:
            if elsewhere is None or not elsewhere.has(word):
                symbols.require(word)
        self._tids = np.array(tids, np.int64)
        self._threads = threads
        self._start_ns, self._end_ns = _nanoseconds(since), _nanoseconds(until)
        if not trace.has_time and (since is not None or until is not None):
            raise BadInput("this trace has no times", remedy="record with --clock tsc")
        self.head = head
        self._whole_span = whole_span
        self._mask: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._mask_version = -1
        self.shown = 0
        self._first_ns, self._last_ns = _NEVER, -_NEVER

    @property
    def seconds(self) -> float | None:
        """From the first to the last event that was looked at, with `whole_span` those of other
        functions and threads too; None without times, and without two moments."""
        if not self._trace.has_time or self._last_ns <= self._first_ns:
            return None
        return (self._last_ns - self._first_ns) / NS_PER_SECOND

    def merged(self) -> Iterator[Events]:
        """The events in order of time."""
        # With `head` what is found is wanted soon, not only after much else was looked for.
        only = self._entries() if self.head is None else None
        start, end = self._start_ns, self._end_ns
        return self._of(self._trace.merged(start_ns=start, end_ns=end, only=only))

    def batches(self) -> Iterator[Events]:
        """The events in the order of the file, which costs less; with `head` as merged()."""
        if self.head is not None:
            return self.merged()
        start, end = self._start_ns, self._end_ns
        return self._of(self._trace.batches(start_ns=start, end_ns=end, only=self._entries()))

    def _entries(self) -> Addresses | None:
        # The chosen functions of those that are in the trace; None where names are not chosen.
        if self._whole_span or not (self._wanted or self._unwanted):
            return None
        entries = self._trace.entries
        ids = self._symbols.of_ips(entries)
        return entries[self._name_mask()[ids]]

    def _of(self, stream: Iterator[Events]) -> Iterator[Events]:
        self.shown = 0  # an exporter may ask more than once
        if self.head == 0:
            return
        for events in stream:
            first_ns, last_ns = _bounds(events)
            if self._wanted or self._unwanted:
                ids = self._symbols.of_ips(events.ip)
                events = events.take(self._name_mask()[ids])
            if len(self._tids):
                events = events.take(np.isin(events.tid, self._tids))
            if self._threads:
                events = events.take(self._of_threads(events))
            if self.head is not None:
                events = events.take(slice(0, self.head - self.shown))
            self.shown += len(events)
            is_all = self.head is not None and self.shown >= self.head
            if is_all:
                last_ns = _bounds(events)[1]
            self._first_ns = min(self._first_ns, first_ns)
            self._last_ns = max(self._last_ns, last_ns)
            yield events
            if is_all:
                return

    def _of_threads(self, events: Events) -> NDArray[np.bool_]:
        keys, index = np.unique(self._tasks.keys(events), return_inverse=True)
        names = [self._tasks.unpack(key)[0].decode(errors="replace") for key in keys.tolist()]
        fits = [any(fnmatchcase(name, glob) for glob in self._threads) for name in names]
        return np.array(fits, np.bool_)[index]

    def _name_mask(self) -> NDArray[np.bool_]:
        if self._mask_version != self._symbols.version or not len(self._mask):
            mask = np.ones(len(self._symbols.names), np.bool_)
            if self._wanted:
                mask &= self._symbols.matching(self._wanted)
            if self._unwanted:
                mask &= ~self._symbols.matching(self._unwanted)
            self._mask, self._mask_version = mask, self._symbols.version
        return self._mask


def _bounds(events: Events) -> tuple[int, int]:
    times = events.time_ns
    return (int(times.min()), int(times.max())) if len(times) else (_NEVER, -_NEVER)


def _nanoseconds(seconds: float | None) -> int | None:
    if seconds is not None and not abs(seconds) < _LONGEST_S:
        raise BadInput(f"{seconds} is no time", remedy="seconds, as the report prints them")
    return None if seconds is None else round(seconds * 1e9)
