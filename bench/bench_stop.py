"""How long a target stands still, by what is done to it, by sites and by threads.

Promises: 10,000 sites <= 10 ms, one operation on one function <= 1 ms (on an idle machine). The
floor is a bare stop: seize, stop, read registers, let go, with nothing done in between.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fentry.dispatch.ops import Callback, Ops
from fentry.session import Options, Session
from support import TARGETS, Program, Table, build, program, scratch

OPTIONS = Options(buffer_bytes=1 << 20, max_stop_s=30)  # to be measured, not refused
SESSIONS = 2
ROUNDS = 4
PATTERNS = {1: "{}_0001", 100: "{}_00??", 1_000: "{}_0*", 10_000: "{}_*"}
OPERATIONS = ("attach", "bare stop", "register", "register again", "unregister", "detach")


@dataclass(slots=True)
class Cost:
    """Of one operation, in ms, a value for each time it was done."""

    longest: list[float] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    felt: list[float] = field(default_factory=list)


Costs = defaultdict[str, Cost]


@contextmanager
def watched(target: Program, cost: Cost, stops_ns: list[int]) -> Iterator[None]:
    """Adds to `cost` what the block did to the target."""
    target.ask("watch")
    stops_ns.clear()
    begin = time.perf_counter()
    yield
    cost.whole.append((time.perf_counter() - begin) * 1e3)
    cost.felt.append(target.ask("gap") / 1e6)
    cost.longest.append(max(stops_ns, default=0) / 1e6)
    cost.stops.append(len(stops_ns))


def measure(target: Program, pattern: str, sessions: int = SESSIONS) -> Costs:
    """The costs of every operation, with ops that record the functions of `pattern`."""
    costs: Costs = defaultdict(Cost)
    for _ in range(sessions):
        stops: list[int] = []
        with watched(target, costs["attach"], stops):
            session = Session(target.pid, OPTIONS)
            stops += session.target.stop_durations_ns
        stops = session.target.stop_durations_ns
        try:
            session.register(Ops(Callback.RECORD, ("main",)))  # from now on there is a ring
            for i in range(ROUNDS):
                with watched(target, costs["bare stop"], stops), session.target.stopped():
                    pass
                word = "register again" if i else "register"  # pads and rows are there
                with watched(target, costs[word], stops):
                    ops = session.register(Ops(Callback.RECORD, (pattern,)))
                with watched(target, costs["unregister"], stops):
                    session.unregister(ops)
            session.register(Ops(Callback.RECORD, (pattern,)))
            with watched(target, costs["detach"], stops):
                session.detach()
        finally:
            session.close()
    return costs


def first_attach(target: Program) -> Costs:
    """What an attach and a detach cost in a process that has done nothing yet: every command."""
    costs: Costs = defaultdict(Cost)
    stops: list[int] = []
    with watched(target, costs["attach"], stops):
        session = Session(target.pid, OPTIONS)
        stops += session.target.stop_durations_ns
    stops = session.target.stop_durations_ns
    with watched(target, costs["bare stop"], stops), session.target.stopped():
        pass
    with watched(target, costs["register"], stops):
        session.register(Ops(Callback.RECORD, ("main",)))
    with watched(target, costs["detach"], stops):
        session.close()
    return costs


def add_rows(table: Table, label: str, costs: Costs, promise_ms: float | None) -> None:
    """A row for each operation."""
    floor = costs["bare stop"]
    for operation in filter(costs.__contains__, OPERATIONS):
        cost = costs[operation]
        low, middle = min(cost.longest), float(np.median(cost.longest))
        said = ""
        if promise_ms is not None and operation not in ("attach", "bare stop"):
            said = f"<= {promise_ms:g} ms: {'kept' if low <= promise_ms else 'missed'}"
        table.add(
            label, operation, f"{low:.2f}", f"{middle:.2f}", f"{low / min(floor.longest):.1f}",
            f"{np.median(cost.stops):.0f}", f"{min(cost.felt):.2f}", f"{min(cost.whole):.1f}", said,
        )  # fmt: skip
        label = ""


COLUMNS = (
    "", "operation", "longest stop, ms, min", "median", "of a bare stop", "stops",
    "felt by a thread, ms, min", "whole operation, ms, min", "promise",
)  # fmt: skip


def by_sites(path: Path) -> Table:
    """10 sleeping threads, 1 to 10,000 sites of either kind."""
    table = Table("Stops by number of sites (recorded functions; 10 sleeping threads)", COLUMNS)
    with program(path, "10", "0") as target:
        add_rows(table, "first of this process", first_attach(target), None)
        for kind, label in (("nop", "NOP"), ("plain", "plain prologue")):
            for count, pattern in PATTERNS.items():
                promise = {1: 1.0, 10_000: 10.0}.get(count)
                costs = measure(target, pattern.format(kind))
                add_rows(table, f"{count:,} x {label}", costs, promise)
    table.notes.append(
        "`register again`: the same functions once more, whose pads are already there; `felt`: "
        "longest gap in the clock of a thread that watches it, the smallest of all times"
    )
    return table


def by_threads(path: Path) -> Table:
    """One site, 1 to 10,000 threads, and ten busy ones."""
    table = Table("Stops by number of threads (one recorded function)", COLUMNS)
    for sleeping, busy in ((1, 0), (10, 0), (100, 0), (1_000, 0), (10_000, 0), (0, 10)):
        label = f"{sleeping:,} sleeping" if sleeping else f"{busy} busy on {os.cpu_count()} CPUs"
        with program(path, str(sleeping), str(busy)) as target:
            costs = measure(target, PATTERNS[1].format("nop"), 2)
            add_rows(table, label, costs, None)
    return table


def main() -> None:
    """Measure and print."""
    parts: tuple[Callable[[Path], Table], ...] = (by_sites, by_threads)
    path = build(TARGETS / "sites.c", "-O1")
    with scratch() as folder:
        os.environ["FENTRY_CACHE"] = str(folder)
        for part in parts:
            part(path).print()


if __name__ == "__main__":
    main()
