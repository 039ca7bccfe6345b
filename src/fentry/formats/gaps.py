"""Gaps of a trace: where calls were recorded on a CPU and overwritten before they were read.

What a full ring refused leaves no gap: such calls have no place in it (CpuLosses.dropped_events).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fentry.formats.tracefile_reader import Run, TraceReader


class Gap(NamedTuple):
    """`lost` calls of a CPU between the last one before (since_ns) and the first one after
    (until_ns), in CLOCK_MONOTONIC ns; counts where records have no time."""

    cpu: int
    lost: int
    since_ns: int
    until_ns: int


def gaps(trace: TraceReader, *, from_start: bool = False) -> Iterator[Gap]:
    """The gaps in file order. What is missing because the file is damaged is among them.

    `from_start`: also what was overwritten before the first record of a CPU, as far as its losses
    account for it (others may have been read by somebody else); since and until are one then.
    """
    losses = {one.cpu: one.overrun + one.incomplete for one in trace.losses}
    last: dict[int, Run] = {}
    for run in trace.runs():
        before = last.get(run.cpu)
        if before is not None:
            lost = run.position - (before.position + before.nr_records)
            since_ns = before.last_ns
        else:
            begun = max(trace.meta.capacity, run.position - losses.get(run.cpu, 0))
            lost = run.position - begun if from_start else 0  # positions begin at the capacity
            since_ns = run.first_ns
        if lost > 0:
            yield Gap(run.cpu, lost, since_ns, run.first_ns)
        last[run.cpu] = run
