"""From attach() to the first event, with a cold and a warm cache of analyses; and start-up.

The target is a Python with OpenSSL, SQLite and numpy loaded, at work in the first two; functions
of OpenSSL are recorded. The floor of the attach is the interpreter that imports what fentry needs;
of start-up, `python -c pass`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fentry.formats.tracefile_reader import TraceReader
from support import CHECKOUT, Program, Table, environment, fentry, program, scratch

WARM_ROUNDS = 5
START_ROUNDS = 7

WORK = """
import hashlib, numpy, sqlite3, ssl, sys, threading
base = sqlite3.connect(":memory:", check_same_thread=False)
def work():
    while True:
        base.execute("select 1 + 1").fetchall()
        hashlib.sha256(b"x" * 4096).hexdigest()
        threading.Event().wait(0.0005)
threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
"""

PATTERN = "libcrypto!EVP_[CD]*"


def one_attach(pid: int) -> dict[str, float]:
    """Seconds of each step, in this process, which has done nothing before."""
    marks: dict[str, float] = {}
    last = time.perf_counter()

    def mark(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        marks[name] = marks.get(name, 0.0) + now - last
        last = now

    import fentry.session as session_module
    import fentry.sites.functions as functions_module
    from fentry.dispatch.ops import Callback, Ops

    mark("imports")

    def timed(owner: object, name: str, label: str) -> None:
        original: Callable[..., object] = getattr(owner, name)

        def wrapper(*arguments: object, **words: object) -> object:
            begin = time.perf_counter()
            try:
                return original(*arguments, **words)
            finally:
                inner[label] = inner.get(label, 0.0) + time.perf_counter() - begin

        setattr(owner, name, wrapper)

    inner: dict[str, float] = {}
    timed(functions_module, "load_modules", "modules and symbols")
    timed(functions_module, "SymbolTable", "table of names")
    timed(functions_module, "analyse_cached", "sites (analysis or cache)")
    session = session_module.Session(pid)
    mark("attach()")
    stops = list(session.target.stop_durations_ns)
    marks["attach(): the rest"] = marks.pop("attach()") - sum(inner.values())
    before = sum(inner.values())
    try:
        ops = session.register(Ops(Callback.RECORD, (PATTERN,)))
        mark("register()")
        marks["register()"] -= sum(inner.values()) - before
        marks |= inner
        marks["recorded"] = float(ops.members.sum())
        while not any(len(batch.records) for batch in session.consume()):
            time.sleep(0.0002)
        mark("until the first event")
        marks["functions"] = float(len(session.functions.table))
        marks["longest stop"] = max([*stops, *session.target.stop_durations_ns]) / 1e9
    finally:
        last = time.perf_counter()
        session.close()
        mark("detach()")
    return marks


def in_new_process(target: Program, cache: Path) -> dict[str, float]:
    """The steps of one attach by a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--attach", str(target.pid)],
        env=environment() | {"FENTRY_CACHE": str(cache)},
        capture_output=True, text=True, check=True, cwd=CHECKOUT / "bench",
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


STEPS = (
    "imports", "modules and symbols", "table of names", "sites (analysis or cache)",
    "attach(): the rest", "register()", "until the first event",
)  # fmt: skip


def attaching() -> Table:
    """Cold beside warm."""
    columns = ("step", "cold cache, ms", "warm, ms, min", "warm, median", "share of warm")
    table = Table("From attach() to the first event", columns)
    with scratch() as folder, program(sys.executable, "-c", WORK) as target:
        cold = in_new_process(target, folder)
        warm = [in_new_process(target, folder) for _ in range(WARM_ROUNDS)]
        commands = [first_event_of_a_command(target, folder) for _ in range(WARM_ROUNDS)]
        with scratch() as empty:
            cold_command = first_event_of_a_command(target, empty)
    total = float(np.median([sum(one[step] for step in STEPS) for one in warm]))
    for step in STEPS:
        values = [one[step] * 1e3 for one in warm]
        middle = float(np.median(values))
        table.add(
            step, f"{cold[step] * 1e3:.1f}", f"{min(values):.1f}", f"{middle:.1f}",
            f"{middle / total / 10:.0f} %",
        )  # fmt: skip
    sums = [sum(one[step] for step in STEPS) * 1e3 for one in warm]
    table.add(
        "**together**", f"{sum(cold[step] for step in STEPS) * 1e3:.1f}", f"{min(sums):.1f}",
        f"{np.median(sums):.1f}", "100 %",
    )  # fmt: skip
    table.add(
        "**fentry record, from its start to the first event**", f"{cold_command * 1e3:.1f}",
        f"{min(commands) * 1e3:.1f}", f"{np.median(commands) * 1e3:.1f}", "",
    )  # fmt: skip
    for name in ("longest stop", "detach()"):
        values = [one[name] * 1e3 for one in warm]
        table.add(name, f"{cold[name] * 1e3:.1f}", f"{min(values):.1f}", f"{np.median(values):.1f}")
    table.notes.append(
        f"{cold['functions']:,.0f} functions, {cold['recorded']:.0f} recorded ({PATTERN}); "
        f"cold once, warm {WARM_ROUNDS} times, each in a new process"
    )
    return table


def first_event_of_a_command(target: Program, cache: Path) -> float:
    """Seconds from the start of `fentry record` to the time of the first record in its file."""
    output = cache / "first.fentry"
    begin = time.monotonic_ns()
    subprocess.run(
        fentry(
            "record", "-p", str(target.pid), "-F", PATTERN, "-d", "0.05", "-o", str(output)
        ),
        env=environment() | {"FENTRY_CACHE": str(cache)},
        capture_output=True, check=True, cwd=CHECKOUT,
    )  # fmt: skip
    with TraceReader(output) as trace:
        first = min(int(events.time_ns.min()) for events in trace.batches())
    output.unlink()
    return (first - begin) / 1e9


def starting() -> Table:
    """The command line beside a bare interpreter."""
    commands = {
        "python -c pass (floor)": [sys.executable, "-c", "pass"],
        "python -c 'import click'": [sys.executable, "-c", "import click"],
        "fentry --help": fentry("--help"),
        "fentry record --help": fentry("record", "--help"),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(START_ROUNDS):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(
                command, env=environment(), stdout=subprocess.DEVNULL, check=True, cwd=CHECKOUT
            )
            times[name].append((time.perf_counter() - begin) * 1e3)
    table = Table("Start-up", ("command", "ms, min", "median", "of the floor (minima)"))
    floor = min(next(iter(times.values())))
    for name, values in times.items():
        low = min(values)
        table.add(name, f"{low:.0f}", f"{np.median(values):.0f}", f"{low / floor:.1f}")
    return table


def main() -> None:
    """Measure and print."""
    if "--attach" in sys.argv:
        print(json.dumps(one_attach(int(sys.argv[-1]))))
        return
    attaching().print()
    starting().print()


if __name__ == "__main__":
    os.environ.pop("FENTRY_DEBUG", None)
    main()
