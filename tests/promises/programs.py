"""The promise of ordinary programs: all functions counted and recorded, and they work as before."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context

from fentry.errors import TargetGone
from fentry.session import Options, Session, attach
from fentry.session import run as run_command
from tests.live.programs.fed import guests
from tests.live.programs.works import ROUNDS, WORKS, Asked, Started
from tests.promises.registry import Run, promise
from tests.support import tracing
from tests.support.unprivileged import PATIENCE_S, Account, accounts

# Everything of seven programs at once on few CPUs: a stop waits for its turn, and so do threads.
OPTIONS = Options(buffer_bytes=8 << 20, max_stop_s=60)
LOOK_S = 0.01
MODULES_S = 0.1
CYCLE_S = 45.0  # then it is detached and attached again


@dataclass(slots=True)
class Sums:
    """What was seen of one program."""

    rounds: int = 0
    calls: int = 0
    recorded: int = 0
    sites: int = 0
    attached: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.rounds} rounds, {self.calls:,} calls of {self.sites:,} functions"


@promise(
    "programs-work", full=1800, least=60, as_each=False,
    unit="seconds of seven programs, each of every account, all at once",
)  # fmt: skip
def programs_work(run: Run) -> str:
    """Every function of the process and its libraries is counted and recorded; answers are those
    that were given untraced; recorded + dropped = counted."""
    cases = [(name, account) for account in accounts() for name in WORKS]
    with ProcessPoolExecutor(len(cases), mp_context=get_context("fork")) as pool:
        sums = list(pool.map(_work, *zip(*cases, strict=True), [run.count] * len(cases)))
    found = [(f"{name}[{who.name}]", one) for (name, who), one in zip(cases, sums, strict=True)]
    faults = [f"{name}: {fault}" for name, one in found for fault in one.faults]
    assert not faults, "; ".join(faults)
    return "; ".join(f"{name} {one}" for name, one in found)


def _work(name: str, account: Account, seconds: int) -> Sums:
    try:
        with WORKS[name](account) as work:
            loop = _loop(work) if isinstance(work, Asked) else _loop_of_commands(work)
            return account.run(loop, seconds, seconds=seconds + PATIENCE_S)
    except Exception as error:  # the others go on, and all faults are told
        return Sums(faults=[f"{type(error).__name__}: {error}"])


# A program that runs


def _loop(work: Asked) -> Callable[[int], Sums]:
    expected = [work.ask(number) for number in range(ROUNDS)]

    def controller(seconds: int) -> Sums:
        sums = Sums()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not sums.faults:
            with ExitStack() as stack:
                traced = [
                    stack.enter_context(_everything(attach(pid, OPTIONS), sums))
                    for pid in work.pids
                ]
                cycle_end = min(end, time.monotonic() + CYCLE_S)
                worker = stack.enter_context(ThreadPoolExecutor(1))
                while time.monotonic() < cycle_end:
                    number = sums.rounds % ROUNDS
                    asked = worker.submit(work.ask, number)
                    while not wait([asked], LOOK_S).done:
                        for one in traced:
                            one.look()
                    sums.rounds += 1
                    if asked.result() != expected[number]:
                        sums.faults.append(f"round {sums.rounds}: {asked.result()[:200]}")
                        break
            sums.faults.extend(left for pid in work.pids for left in guests(pid))
        return sums

    return controller


# Commands


def _loop_of_commands(work: Started) -> Callable[[int], Sums]:
    def controller(seconds: int) -> Sums:
        sums = Sums()
        os.chdir(work.folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background ignores it
        with open("out", "w+b") as out, open("err", "w+b") as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            end = time.monotonic() + seconds
            while time.monotonic() < end and not sums.faults:
                command = work.commands[sums.rounds % len(work.commands)]
                plain = subprocess.run(command, check=False, timeout=PATIENCE_S)
                expected = plain.returncode, work.answer(_taken(out.fileno()))
                with _everything(run_command(command, OPTIONS), sums) as traced:
                    traced.session.release()
                    while not traced.has_ended():
                        traced.look()
                    code = traced.session.exit_code()
                found = code, work.answer(_taken(out.fileno()))
                sums.rounds += 1
                if found != expected:
                    said = _taken(err.fileno())[-300:]
                    sums.faults.append(f"{command}: {found[0]} for {expected[0]}, {said}")
        return sums

    return controller


def _taken(descriptor: int) -> str:
    """What the file holds; it is empty afterwards."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 1 << 24).decode(errors="replace")
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.truncate(descriptor, 0)
    return text


# All functions of one process


class _Everything:
    def __init__(self, session: Session, sums: Sums) -> None:
        self.session = session
        self._sums = sums
        self._records = 0
        self._next_modules = 0.0
        self._counting = session.register(tracing.counting("*"))
        session.register(tracing.recording("*"))
        self._before = self._counted()  # counted before recording began, or a little later
        table = session.functions.table
        sums.sites = max(sums.sites, int((self._counting.members & table.traceable).sum()))
        sums.attached += 1

    def look(self) -> None:
        """Take records, and follow libraries that are loaded."""
        self._records += sum(len(batch.records) for batch in self.session.consume())
        if time.monotonic() >= self._next_modules:
            self._next_modules = time.monotonic() + MODULES_S
            try:
                self.session.follow_modules()
            except TargetGone:
                return  # its end is looked for by who asked

    def has_ended(self) -> bool:
        """Whether the process ends within a look."""
        return bool(select.select([self.session.pidfd], [], [], LOOK_S)[0])

    def account(self) -> None:
        """After the detach: every call that was counted was recorded or is known to be lost."""
        self._records += sum(len(batch.records) for batch in self.session.consume(final=True))
        stats = self.session.stats
        assert stats is not None
        lost = int(stats.dropped_events.sum()) + int(stats.incomplete.sum())
        counted, made = self._counted(), self._records + lost
        self._sums.calls += counted
        self._sums.recorded += self._records
        if not made <= counted <= made + self._before:
            self._sums.faults.append(
                f"{counted} counted, {self._records} recorded, {lost} lost, {self._before} before"
            )

    def _counted(self) -> int:
        return int(self.session.counts(self._counting)[1].sum())


@contextmanager
def _everything(session: Session, sums: Sums) -> Iterator[_Everything]:
    with session:
        traced = _Everything(session, sums)
        yield traced
    traced.account()
