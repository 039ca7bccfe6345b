"""The list of promises: a name, a full count, and a function that keeps or breaks it.

@promise("toggle-under-fire", full=100_000, unit="toggles")
def toggled_under_fire(run: Run) -> str:
    ...                                  # run.count toggles as run.account
    return "0 crashes, 16 threads"       # the figure; AssertionError breaks the promise
"""

from __future__ import annotations

import importlib
import pkgutil
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support.unprivileged import Account, accounts

PATIENT_S = 30.0  # longest stop, where it is not what is promised, on however busy a machine


@dataclass(frozen=True, slots=True)
class Run:
    """What a promise gets: how many times, as whom."""

    count: int
    account: Account


Body = Callable[[Run], str]


@dataclass(frozen=True, slots=True)
class Promise:
    """`full` is the count that is promised, `least` the smallest that shows anything; `as_each`
    runs it as every account."""

    name: str
    full: int
    unit: str
    body: Body
    as_each: bool = True
    least: int = 1

    def count(self, scale: float) -> int:
        """`full * scale`, at least `least`."""
        return max(self.least, round(self.full * scale))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of one promise ended; `figure` is the fault if it is broken."""

    promise: Promise
    account: Account
    count: int
    kept: bool
    figure: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"{'PASS' if self.kept else 'FAIL'} {self.promise.name}[{self.account.name}] "
            f"{self.count:,} {self.promise.unit}: {self.figure}  ({self.seconds:.1f} s)"
        )


_registered: dict[str, Promise] = {}


def promise(
    name: str, *, full: int, unit: str, as_each: bool = True, least: int = 1
) -> Callable[[Body], Body]:
    """Register the decorated function under `name`; names are unique."""

    def register(body: Body) -> Body:
        assert name not in _registered, f"two promises are called {name}"
        _registered[name] = Promise(name, full, unit, body, as_each, least)
        return body

    return register


def load() -> dict[str, Promise]:
    """All promises by name, from every module of this package, in the order of their files."""
    package = Path(__file__).parent
    for module in sorted(info.name for info in pkgutil.iter_modules([str(package)])):
        if module != "__main__" and not module.startswith("test_"):
            importlib.import_module(f"tests.promises.{module}")
    return dict(_registered)


def runs_of(promises: Iterable[Promise]) -> list[tuple[Promise, Account]]:
    """Each promise with each account it is to be run as."""
    return [
        (promise, account)
        for promise in promises
        for account in (accounts() if promise.as_each else accounts()[:1])
    ]


def keep(promise: Promise, account: Account, scale: float) -> Outcome:
    """Run one promise; any exception breaks it."""
    count = promise.count(scale)
    start = time.monotonic()
    try:
        kept, figure = True, promise.body(Run(count, account))
    except Exception as fault:
        traceback.print_exception(fault)
        # Of a child's traceback, what it raised.
        lines = [line for line in str(fault).splitlines() if line.lstrip() == line]
        told = [line for line in lines if line and not line.startswith("Traceback")]
        kept, figure = False, f"{type(fault).__name__}: {told[0] if told else ''}"
    return Outcome(promise, account, count, kept, figure, time.monotonic() - start)
