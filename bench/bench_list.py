"""What sets save: the same ops dispatched by a list that asks each of them, side by side.

The list is the classic one (docs/design/list.md): the cost of a traced function grows with every
other user, also of other functions.  A set costs the sum of its bodies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from bench_isolation import Unavailable, _open_uprobe, frida, other_names
from fentry.dispatch.ops import Callback, Ops
from fentry.session import Options, Session
from support import (
    TARGETS,
    Program,
    Table,
    build,
    program,
    take_turns,
    target_cpu,
    verdict,
)  # fmt: skip

CALLS = 5_000
ROUNDS = 300
OTHERS = (0, 1, 8, 64, 512)
SAME = (1, 2, 4, 8)
UPROBES, FRIDA = "kernel uprobes, count", "Frida, CModule onEnter, counting"
BUFFER_BYTES = 4 << 20  # 8 records of 24 bytes for each call of a round

Case = Callable[[], float]


@contextmanager
def traced(path: Path, cpu: int, dispatch: str, ops: Sequence[Ops]) -> Iterator[Case]:
    """A program whose functions `ops` trace; nanoseconds of a call of nop_record."""
    with program(path, f"cpu={cpu}") as target:
        session = Session(target.pid, Options(buffer_bytes=BUFFER_BYTES, dispatch=dispatch))
        try:
            for one in ops:
                session.register(one)

            def measure() -> float:
                result = target.per_call("nop_record", CALLS)
                for _ in session.consume():
                    pass
                return result

            yield measure
        finally:
            session.close()


def calling(target: Program, name: str) -> Case:
    """Nanoseconds of a call of a function that nobody traces."""
    return lambda: target.per_call(name, CALLS)


Added = Mapping[str, tuple[float, float]]


def added(cases: Mapping[str, Case], seconds: float) -> Added:
    """What each case adds to an untraced call, ns: (minimum, median), all measured in turn."""
    samples = take_turns(cases, ROUNDS, seconds=seconds)
    free = samples["untraced"]
    return {
        name: (float(found.min() - free.min()), float(np.median(found) - np.median(free)))
        for name, found in samples.items()
    }


def others() -> Table:
    """0 to 512 ops on other functions: sets beside the list."""
    path, cpu = build(TARGETS / "calls.c", "-DMANY"), target_cpu()
    table = Table(
        "One recorded function beside N ops on N other functions: ns added to a call",
        ("others", "sets, min", "median", "list, min", "median", "list / sets (minima)",
         "sets / sets with none", "promise"),
    )  # fmt: skip
    with ExitStack() as stack:
        target = stack.enter_context(program(path, f"cpu={cpu}"))
        cases: dict[str, Case] = {"untraced": calling(target, "nop_untraced")}
        for count in OTHERS:
            for dispatch in ("sets", "list"):
                ops = [Ops(Callback.RECORD, ("nop_record",))]
                ops += [Ops(Callback.RECORD, (name,)) for name in other_names(count)]
                cases[f"{dispatch} {count}"] = stack.enter_context(traced(path, cpu, dispatch, ops))
        found = added(cases, 30)
    for count in OTHERS:
        ours, theirs = found[f"sets {count}"], found[f"list {count}"]
        ratio = ours[0] / found["sets 0"][0]
        table.add(
            str(count), *(f"{value:.1f}" for value in (*ours, *theirs)),
            f"{theirs[0] / ours[0]:.2f}", f"{ratio:.2f}",
            verdict(ratio, 1.02 if count == 64 else None),
        )  # fmt: skip
    table.notes.append(
        "each ops records and is on a function of its own, registered after the one that is "
        "measured, so the list asks all of them first; a process for each figure"
    )
    return table


def same() -> Table:
    """1 to 8 ops on the same function: sets beside the list, a kernel uprobe, Frida."""
    path, cpu = build(TARGETS / "calls.c", "-DMANY"), target_cpu()
    table = Table(
        "N ops on the same function: ns added to a call",
        ("", "ops", "added, min", "median", "of N times one", "of sets"),
    )
    with ExitStack() as stack:
        target = stack.enter_context(program(path, f"cpu={cpu}"))
        cases: dict[str, Case] = {"untraced": calling(target, "nop_untraced")}
        for callback in (Callback.RECORD, Callback.COUNT):
            for dispatch in ("sets", "list"):
                for count in SAME:
                    ops = [Ops(callback, ("nop_record",)) for _ in range(count)]
                    cases[f"{callback.name.lower()}, {dispatch} {count}"] = stack.enter_context(
                        traced(path, cpu, dispatch, ops)
                    )
        missing: dict[str, str] = {}
        peers = [(UPROBES, count, probed(path, cpu, count)) for count in SAME]
        for label, count, peer in [*peers, (FRIDA, 1, frida_alone(path, cpu))]:
            try:
                cases[f"{label} {count}"] = stack.enter_context(peer)
            except Unavailable as error:
                missing[label] = str(error)
        found = added(cases, 40)
    for word in ("record", "count"):
        for dispatch in ("sets", "list"):
            for count in SAME:
                _row(table, found, f"{word}, {dispatch}", count, f"{word}, sets")
    for label, count, _ in [*peers, (FRIDA, 1, None)]:
        if label not in missing:
            _row(table, found, label, count, "count, sets")
    for label, why in missing.items():
        table.missing(label, why)
    return table


def _row(table: Table, found: Added, label: str, count: int, sets: str) -> None:
    low, middle = found[f"{label} {count}"]
    table.add(
        label, str(count), f"{low:.1f}", f"{middle:.1f}",
        f"{low / (count * found[f'{label} 1'][0]):.2f}", f"{low / found[f'{sets} {count}'][0]:.2f}",
    )  # fmt: skip


@contextmanager
def probed(path: Path, cpu: int, count: int) -> Iterator[Case]:
    """A program with `count` uprobes that count on one function."""
    kind = Path("/sys/bus/event_source/devices/uprobe/type")
    if not kind.exists():
        raise Unavailable("the kernel has no uprobe event source")
    with program(path, f"cpu={cpu}") as target, ExitStack() as stack:
        for _ in range(count):
            fd = _open_uprobe(int(kind.read_text()), path, target.pid)
            stack.callback(os.close, fd)
        if not target.ask("nop_record 1"):
            raise Unavailable("the probed function does not answer")
        yield lambda: target.per_call("nop_record", CALLS // 20)


@contextmanager
def frida_alone(path: Path, cpu: int) -> Iterator[Case]:
    """One listener of Frida that counts."""
    with frida(path, cpu) as (measure, _):
        yield measure


def main() -> None:
    """Measure and print."""
    others().print()
    same().print()


if __name__ == "__main__":
    main()
