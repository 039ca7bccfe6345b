"""What the benches share: their programs, rounds that take turns, and tables of ratios.

Every figure stands beside a floor measured in the same run. A case and its floor are measured
in turn, round after round: a slow moment of the machine hits both.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHECKOUT = Path(__file__).resolve().parent.parent
TARGETS = CHECKOUT / "bench" / "targets"
for entry in (CHECKOUT, CHECKOUT / "src"):
    if str(entry) not in sys.path:
        sys.path.insert(0, str(entry))

from tests.support.build import (  # noqa: E402
    building,
    compiler_version,
    run_compiler,
    target_directory,
)
from tests.support.machine import describe as describe  # noqa: E402
from tests.support.unprivileged import allow_any_tracer  # noqa: E402

MISSING = "not measured"


# 1. Tables


@dataclass(slots=True)
class Table:
    """A table of results as Markdown; `notes` follow it, a line each."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Append a row; missing cells are empty."""
        self.rows.append([*cells, *[""] * (len(self.columns) - len(cells))])

    def missing(self, what: str, why: str) -> None:
        """A row for what this machine cannot show, with the reason."""
        self.add(what, f"{MISSING}: {why}")

    def print(self) -> None:
        """Write the table to stdout."""
        widths = [
            max(len(str(row[i])) for row in [self.columns, *self.rows] if not _spans(row, i))
            for i in range(len(self.columns))
        ]
        print(f"**{self.title}**\n")
        for row in [self.columns, ["-" * width for width in widths], *self.rows]:
            cells = (str(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            print("| " + " | ".join(cells) + " |")
        print()
        for note in self.notes:
            print(f"- {note}")
        if self.notes:
            print()
        sys.stdout.flush()


def _spans(row: Sequence[str], i: int) -> bool:
    return i > 0 and str(row[i]).startswith(MISSING)


Samples = Mapping[str, NDArray[np.float64]]


def ratios(samples: Samples, case: str, floor: str) -> tuple[float, float]:
    """(minimum over minimum, median of the ratios of each round)."""
    ours, theirs = samples[case], samples[floor]
    return float(ours.min() / theirs.min()), float(np.median(ours / theirs))


def verdict(ratio: float, promise: float | None) -> str:
    """What a promise says to a measured ratio."""
    if promise is None:
        return ""
    return f"<= {promise:.2f}: {'kept' if ratio <= promise + 0.005 else 'missed'}"


# 2. Rounds


def take_turns(
    cases: Mapping[str, Callable[[], float]], rounds: int, seconds: float = 25.0
) -> dict[str, NDArray[np.float64]]:
    """What each case returned, float64[rounds]; the order is reversed in every other round.

    Ends early after `seconds`, with at least three rounds.
    """
    found: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    end = time.monotonic() + seconds
    for i in range(rounds):
        for name in names if i % 2 else reversed(names):
            found[name].append(cases[name]())
        if i >= 2 and time.monotonic() > end:
            break
    return {name: np.array(values) for name, values in found.items()}


# 3. Programs


def build(source: Path, *words: str) -> Path:
    """The executable of a C file, built once per content, readable by every user."""
    command = ["gcc", "-O2", "-fcf-protection=none", "-pthread", *words]
    digest = hashlib.sha256(source.read_bytes())
    digest.update("\0".join([*command, compiler_version("gcc")]).encode())
    output = target_directory() / f"bench-{source.stem}-{digest.hexdigest()[:12]}"
    if not output.exists():
        with building(output) as unfinished:
            if unfinished is not None:
                run_compiler([*command, str(source), "-o", str(unfinished)])
    return output


def target_cpu() -> int:
    """The processor on which targets are measured; this process keeps off it if it can."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) > 1:
        os.sched_setaffinity(0, cpus[:-1])
    return cpus[-1]


class Program:
    """A bench program that answers each line of stdin with a line of stdout."""

    def __init__(self, *command: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            preexec_fn=allow_any_tracer,
        )
        self._expect("ready")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _expect(self, word: str) -> None:
        line = self._line()
        if line != word:
            raise RuntimeError(f"{self._process.args!r} said {line!r}, not {word!r}")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def ask(self, line: str) -> int:
        """The number with which it answers a line."""
        self.tell(line)
        return int(self._line())

    def tell(self, line: str) -> None:
        """Give it a line whose answer is read later, with `answer`."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> int:
        """The answer to an earlier `tell`."""
        return int(self._line())

    def per_call(self, name: str, calls: int) -> float:
        """Nanoseconds of one call of a function of calls.c, loop included."""
        return self.ask(f"{name} {calls}") / calls

    def finish(self, seconds: float = 20) -> None:
        """Let it end by itself: its stdin is at its end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(seconds)

    def end(self) -> str:
        """How it ended by itself, in words."""
        code = self._process.wait(20)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def program(
    *command: str | Path, environment: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """A Program that is ended on leaving."""
    running = Program(*command, environment=environment)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is removed on leaving."""
    path = Path(tempfile.mkdtemp(prefix="fentry-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def fentry(*words: str) -> list[str]:
    """The command line of fentry in this checkout."""
    return [sys.executable, "-m", "fentry.cli.__main__", *words]


def environment() -> dict[str, str]:
    """The environment in which `fentry()` finds the checkout.

    Modules are compiled once, as an installed package has them, whatever the shell says.
    """
    path = f"{CHECKOUT / 'src'}:{os.environ.get('PYTHONPATH', '')}"
    others = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    compiled = f"{tempfile.gettempdir()}/fentry-bench-{os.getuid()}"
    return {"PYTHONPYCACHEPREFIX": compiled, **others, "PYTHONPATH": path}
