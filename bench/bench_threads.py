"""What a thread filter costs: functions that have one, and functions beside them that have none.

Promise: an unfiltered function beside 8 ops that filter threads / alone <= 1.02.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.threads import ThreadFilter
from fentry.session import Options, Session
from support import (
    TARGETS,
    Program,
    Samples,
    Table,
    build,
    program,
    ratios,
    take_turns,
    target_cpu,
    verdict,
)  # fmt: skip

CALLS = 20_000
ROUNDS = 300
OPTIONS = Options(buffer_bytes=1 << 20)
BESIDE = [f"other_0{n}" for n in range(8)]
CHANGES = 2000

KINDS: dict[str, Callable[[int], ThreadFilter]] = {
    "alone": lambda tid: ThreadFilter(),
    "beside": lambda tid: ThreadFilter(),
    "wanted": lambda tid: ThreadFilter({tid}),
    "unwanted": lambda tid: ThreadFilter(notrace_tids={tid}),
}


def measure(stack: ExitStack, changes: list[float]) -> Samples:
    """ns per call of every case; microseconds of each change of a filter into `changes`."""
    path, cpu = build(TARGETS / "calls.c"), target_cpu()
    cases: dict[str, Callable[[], float]] = {}
    for kind, threads in KINDS.items():
        target = stack.enter_context(program(path, f"cpu={cpu}"))
        session = Session(target.pid, OPTIONS)
        stack.callback(session.close)
        wanted = threads(target.pid)
        record = session.register(Ops(Callback.RECORD, ("nop_record",), threads=wanted))
        session.register(Ops(Callback.COUNT, ("nop_count",), threads=wanted))
        if kind == "beside":
            for name in BESIDE:
                some = ThreadFilter({target.pid})
                session.register(Ops(Callback.RECORD, (name,), threads=some))
        if kind == "wanted":
            for n in range(CHANGES):
                begun = time.perf_counter()
                session.set_threads(
                    record, KINDS["unwanted" if n % 2 == 0 else "wanted"](target.pid)
                )
                changes.append(1e6 * (time.perf_counter() - begun))

        def case(function: str, target: Program = target, session: Session = session) -> float:
            result = target.per_call(function, CALLS)
            for _ in session.consume():
                pass
            return result

        for word, function in (
            ("record", "nop_record"), ("count", "nop_count"), ("untraced", "nop_untraced"),
            ("floor", "call_floor"), ("trampoline", "call_trampoline"),
        ):  # fmt: skip
            cases[f"{kind} {word}"] = lambda f=function, c=case: c(f)  # type: ignore[misc]
    # The first and the last of a round come twice in a row, and were seen to be slower.
    ends = {"first": cases["alone untraced"]}, {"last": cases["unwanted untraced"]}
    return take_turns(ends[0] | cases | ends[1], ROUNDS)


ROWS: tuple[tuple[str, str, str, str, float | None], ...] = (
    ("untraced, beside 8 filtered ops", "beside untraced", "alone untraced", "alone", 1.02),
    ("recorded, no filter, alone", "alone record", "alone floor", "floor", None),
    ("recorded, no filter, beside 8 filtered ops", "beside record", "alone record", "alone", 1.02),
    ("**recorded, filter, wanted thread**", "wanted record", "wanted floor", "floor", None),
    ("the same", "wanted record", "alone record", "no filter", None),
    ("**recorded, filter, unwanted thread**", "unwanted record", "unwanted floor", "floor", None),
    ("the same", "unwanted record", "unwanted trampoline", "trampoline", None),
    ("counted, no filter, alone", "alone count", "alone trampoline", "trampoline", None),
    ("counted, no filter, beside 8 filtered ops", "beside count", "alone count", "alone", 1.02),
    ("**counted, filter, wanted thread**", "wanted count", "wanted trampoline", "trampoline", None),
    ("the same", "wanted count", "alone count", "no filter", None),
    ("**counted, filter, unwanted thread**", "unwanted count", "unwanted trampoline",
     "trampoline", None),
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    changes: list[float] = []
    with ExitStack() as stack:
        samples = measure(stack, changes)
    table = Table(
        "One call of a function whose ops filter threads, loop and called function included",
        ("", "ns, min", "ns, median", "ratio of minima", "median ratio", "of", "promise"),
    )
    for label, case, floor, of, promise in ROWS:
        low, middle = ratios(samples, case, floor)
        values = samples[case]
        table.add(
            label, f"{values.min():.2f}", f"{np.median(values):.2f}", f"{low:.2f}",
            f"{middle:.2f}", of, verdict(middle, promise),
        )  # fmt: skip
    rounds = len(next(iter(samples.values())))
    table.notes.append(
        f"{rounds} rounds that take turns, {CALLS} calls each, one processor; alone, beside, "
        "wanted and unwanted are a process each, whose own differences are in ratios of two of them"
    )
    table.notes.append(
        f"changing the threads of an ops: {min(changes):.0f} us, median {np.median(changes):.0f} "
        "us, in the controller; the process is not stopped"
    )
    table.print()


if __name__ == "__main__":
    main()
