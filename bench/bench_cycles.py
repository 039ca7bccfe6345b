"""Ops that come and go on a loaded process: what its work loses, beside an idle controller.

A hundred busy threads; windows without any change and windows with one register and one unregister
each 60 ms take turns, in one process that stays attached. The controller needs a processor as well:
where all are busy, what it uses is lost to the program, so its own time is given beside.
"""

from __future__ import annotations

import os
import time

import numpy as np

from fentry.dispatch.ops import Callback, Ops
from fentry.session import Options, Session
from support import TARGETS, Program, Table, build, program, scratch

THREADS = 100
CYCLES_A_MINUTE = 1_000
WINDOW_S = 1.5
ROUNDS = 8
PROMISE = 0.01


def window(target: Program, session: Session, cycles: bool) -> tuple[float, float, list[int]]:
    """(thousands of rounds a second, processors' share used by this process, stops in ns)."""
    session.target.stop_durations_ns.clear()
    begin, before, used = time.perf_counter(), target.ask("done"), time.process_time()
    end, period = begin + WINDOW_S, 60 / CYCLES_A_MINUTE
    following = begin
    while (now := time.perf_counter()) < end:
        following += period
        if cycles:
            session.unregister(session.register(Ops(Callback.RECORD, ("plain_0100",))))
        time.sleep(max(0.0, following - time.perf_counter()))
    now = time.perf_counter()
    rate = (target.ask("done") - before) / (now - begin)
    share = (time.process_time() - used) / (now - begin) / (os.cpu_count() or 1)
    return rate, share, list(session.target.stop_durations_ns)


def main() -> None:
    """Measure and print."""
    path = build(TARGETS / "sites.c", "-O1")
    found: dict[bool, list[tuple[float, float, list[int]]]] = {False: [], True: []}
    with scratch() as folder, program(path, "0", str(THREADS)) as target:
        os.environ["FENTRY_CACHE"] = str(folder)
        with Session(target.pid, Options(buffer_bytes=1 << 20)) as session:
            session.register(Ops(Callback.RECORD, ("main",)))
            window(target, session, True)
            for i in range(2 * ROUNDS):
                cycles = bool((i + i // 2) % 2)
                found[cycles].append(window(target, session, cycles))
    rates = {kind: np.array([one[0] for one in rows]) for kind, rows in found.items()}
    lost = 1 - float(np.median(rates[True]) / np.median(rates[False]))
    own = float(np.median([one[1] for one in found[True]]))
    stops = np.array([ns for one in found[True] for ns in one[2]]) / 1e6
    title = f"{CYCLES_A_MINUTE:,} cycles a minute on {THREADS} busy threads, {os.cpu_count()} CPUs"
    table = Table(title, ("", "median", "promise"))
    table.add(
        "**throughput lost**", f"{lost:.1%}",
        f"<= {PROMISE:.0%}: {'kept' if lost <= PROMISE else 'missed'}",
    )  # fmt: skip
    table.add("processor time of the controller, of all processors", f"{own:.1%}")
    table.add("lost beyond that", f"{lost - own:.1%}")
    table.add("stop, ms", f"{np.median(stops):.2f}")
    table.add("longest stop, ms", f"{stops.max():.2f}")
    noise = float(np.std(rates[False]) / np.mean(rates[False]))
    table.notes.append(
        f"{ROUNDS} windows of {WINDOW_S:g} s of each kind; rates of windows without changes "
        f"differ by {noise:.1%} (standard deviation)"
    )
    table.print()


if __name__ == "__main__":
    main()
