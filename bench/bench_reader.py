"""How fast records reach a file, and lines reach a reader.

`fentry record` drains a producer that calls one function flat out; beside it, write() of the same
bytes in pieces of the same size, and nothing else. `fentry report` beside `cat` of its output.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import numpy as np

from support import (
    CHECKOUT,
    TARGETS,
    Table,
    build,
    environment,
    fentry,
    program,
    scratch,
    target_cpu,
)  # fmt: skip

SECONDS = 0.5
ROUNDS = 3
RINGS = ((4 << 20, False), (4 << 20, True), (16 << 20, False))  # bytes a CPU, without parent
FLOOR_BYTES = 256 << 20
PACED = 1_000_000  # calls, as many events for `report` if none is dropped
SHOWN = re.compile(rb"(\d+) of (\d+) events")
FINAL = re.compile(r"(\d+) events, (\d+) dropped")


def record(pid: int, path: Path, buffer_bytes: int, narrow: bool) -> tuple[int, int]:
    """(events, dropped) of one recording."""
    done = subprocess.run(
        fentry(
            "record", "-p", str(pid), "-F", "nop_record", "-d", f"{SECONDS:g}s", "-o", str(path),
            "-m", str(buffer_bytes), *(["--no-parent"] if narrow else []),
        ),
        env=environment(), capture_output=True, text=True, check=True, cwd=CHECKOUT,
    )  # fmt: skip
    match = FINAL.search(done.stderr)
    if match is None:
        raise RuntimeError(done.stderr)
    return int(match[1]), int(match[2])


def write_alone(path: Path, count: int, piece: int) -> float:
    """Seconds to write `count` bytes of ready memory in pieces."""
    block = memoryview(b"\1" * piece)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    begin = time.perf_counter()
    try:
        for start in range(0, count, piece):
            os.write(fd, block[: min(piece, count - start)])
        return time.perf_counter() - begin
    finally:
        os.close(fd)


def draining(path: Path, cpu: int) -> Table:
    """Records per second into a file, and what was lost."""
    table = Table(
        "A producer flat out, drained to a file by `fentry record`",
        ("ring a CPU, record", "calls, M/s", "recorded, M/s, median", "best", "MB/s, best",
         "lost, median", "write() alone, MB/s", "of write(), best"),
    )  # fmt: skip
    with scratch() as folder:
        for buffer_bytes, narrow in RINGS:
            size = 16 if narrow else 24
            rates, lost, calls, floors = [], [], [], []
            for _ in range(ROUNDS):
                file = folder / "trace"
                with program(path, f"cpu={cpu}") as target:
                    target.tell(f"nop_record {10**12}")
                    events, dropped = record(target.pid, file, buffer_bytes, narrow)
                file.unlink()
                rates.append(events / SECONDS / 1e6)
                calls.append((events + dropped) / SECONDS / 1e6)
                lost.append(dropped / max(1, events + dropped))
                count = min(events * size, FLOOR_BYTES)
                floors.append(count / write_alone(file, count, 1 << 20) / 1e6)
                file.unlink()
            best = max(rates)
            table.add(
                f"{buffer_bytes >> 20} MB, {size} bytes", f"{np.median(calls):.0f}",
                f"{np.median(rates):.1f}", f"{best:.1f}", f"{best * size:.0f}",
                f"{np.median(lost):.1%}", f"{max(floors):.0f}",
                f"{best * size / max(floors):.2f}",
            )  # fmt: skip
    table.notes.append(
        f"{ROUNDS} recordings of {SECONDS:g} s, each with its own producer on one processor; "
        "lost calls are counted by the ring, none goes missing"
    )
    return table


def reporting(path: Path, cpu: int) -> Table:
    """Lines per second of `fentry report`."""
    table = Table(
        "`fentry report`",
        ("output", "s, min", "s, median", "events", "M events/s, best", "MB of output", "of cat"),
    )
    with scratch() as folder:
        file, text = folder / "trace", folder / "text"
        with program(path, f"cpu={cpu}") as target:
            recorder = subprocess.Popen(
                fentry("record", "-p", str(target.pid), "-F", "nop_record", "-o", str(file)),
                env=environment(), stderr=subprocess.DEVNULL, cwd=CHECKOUT,
            )  # fmt: skip
            await_site(target.pid, file)
            for _ in range(PACED // 20_000):
                target.ask("nop_record 20000")
                time.sleep(0.003)  # the recorder needs a moment for each: nothing is dropped
            recorder.send_signal(2)
            recorder.wait()
        columns = ("--columns", "time,cpu,task,tid,function,parent")
        for words in ((), columns, ("--json",), ("--counts",)):
            times, cats, events = [], [], 0
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                with open(text, "wb") as out:
                    done = subprocess.run(
                        fentry("report", "-i", str(file), *words), env=environment(),
                        stdout=out, stderr=subprocess.PIPE, check=True, cwd=CHECKOUT,
                    )  # fmt: skip
                match = SHOWN.search(done.stderr)
                events = int(match[1]) if match else 0
                times.append(time.perf_counter() - begin)
                begin = time.perf_counter()
                with open(folder / "copy", "wb") as out:
                    subprocess.run(["cat", str(text)], stdout=out, check=True)
                cats.append(time.perf_counter() - begin)
            table.add(
                " ".join(("report", *words)), f"{min(times):.2f}", f"{np.median(times):.2f}",
                f"{events:,}", f"{events / min(times) / 1e6:.2f}",
                f"{text.stat().st_size / 1e6:.1f}",
                f"{min(times) / min(cats):.0f}x",
            )  # fmt: skip
    table.notes.append("start-up included")
    return table


def await_site(pid: int, file: Path) -> None:
    """Wait until the recorder writes: then the function is traced."""
    end = time.monotonic() + 30
    while not file.exists() or file.stat().st_size == 0:
        if time.monotonic() > end:
            raise RuntimeError(f"the recording of {pid} did not begin")
        time.sleep(0.01)


def main() -> None:
    """Measure and print."""
    path, cpu = build(TARGETS / "calls.c"), target_cpu()
    draining(path, cpu).print()
    reporting(path, cpu).print()


if __name__ == "__main__":
    main()
