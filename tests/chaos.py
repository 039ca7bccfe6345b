"""Chaos: a program of threads, forks, libraries and signals, and a controller that does anything.

    python -m tests.chaos --seed 7 --seconds 600

Each round a controller attaches to the program or adopts what a dead one left, registers,
unregisters and filters ops of every kind in several instances while the program works, and is
killed or leaves. While some ops come and go, the calls that others saw between two moments at the
program's gate are held against what the program counted itself: recorded + dropped = counted =
made. Its own results are checked by the program all the time. A seed says what is drawn; when
things happen is up to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fentry.dispatch.ops import Callback, Ops
from fentry.errors import StopTimeout, TargetGone
from fentry.instance import Instance
from fentry.region.registry import UnfinishedRegistry
from fentry.ring.layout import MODE_DISCARD, MODE_OVERWRITE
from fentry.session import Options, Session, adopt, attach
from tests.support import tracing
from tests.support.build import build
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, accounts

BUILDS = (
    ("gcc", ("-O2",)), ("gcc", ("-O0",)), ("gcc", ("-O3", "-fcf-protection")),
    ("gcc", ("-Os",)), ("gcc", ("-O2", "-pg", "-mfentry", "-mnop-mcount", "-fno-pie", "-no-pie")),
    ("gcc", ("-O1", "-fpatchable-function-entry=5", "-fno-pie", "-no-pie")),
    ("clang", ("-O2",)), ("clang", ("-O1", "-fno-pie", "-no-pie")),
)  # fmt: skip
FILTERS = (
    ("f_*",), ("f_leaf",), ("f_[a-l]*",), ("f_*", "!f_recursive"), ("re:f_(tail|leaf|double)",),
    ("f_s*", "f_calls"), ("f_handled", "f_short_thread"), ("f_jump", "f_set_jump"),
)  # fmt: skip
NOTRACE = ((), (), ("f_leaf",), ("f_*t*",))
INSTANCES = ("", "one", "two")
MOST_OPS = 7  # of one controller; with the steady ones no function has more than a set can hold
WINDOW_S = (0.02, 0.3)
KILLED = 0.4  # of the controllers
GATE_S = 60


@dataclass(slots=True)
class Done:
    """What became of a run: rounds, windows that were held against the program, calls in them."""

    rounds: int = 0
    killed: int = 0
    windows: int = 0
    calls: int = 0
    actions: Counter[str] = field(default_factory=Counter)

    def add(self, line: str) -> None:
        """One report of a controller: windows, calls, actions by name."""
        windows, calls, *actions = line.split()
        self.windows += int(windows)
        self.calls += int(calls)
        self.actions.update(actions)

    def __str__(self) -> str:
        actions = ", ".join(f"{count} {name}" for name, count in sorted(self.actions.items()))
        return (
            f"{self.rounds} controllers, {self.killed} of them killed; {self.calls:,} calls in "
            f"{self.windows} windows accounted; {actions}"
        )


def run(seed: int, seconds: float, account: Account) -> Done:
    """Chaos for some seconds. Raises AssertionError, with the seed, for any wrong of the program
    or of an account."""
    draw, done = random.Random(seed), Done()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        compiler, flags = draw.choice(BUILDS)
        program = build("chaos.c", flags=flags, compiler=compiler)
        words = (
            f"seed={draw.randrange(1 << 30)}", f"threads={draw.choice((1, 3, 8))}",
            f"signal_us={draw.choice((0, 200, 2000))}", f"library={build('libdso.c')}",
        )  # fmt: skip
        until = min(deadline, time.monotonic() + draw.uniform(5, 30))
        try:
            _one_program(draw, done, str(program), words, account, until)
        except BaseException:
            print(f"chaos: seed {seed}, {program} {' '.join(words)}", file=sys.stderr)
            raise
    return done


def _one_program(
    draw: random.Random, done: Done, program: str, words: tuple[str, ...], account: Account,
    until: float,
) -> None:  # fmt: skip
    with start(program, *words, account=account) as target:
        target.hold(GATE_S)
        before = snapshot(target.pid)
        target.go()
        while time.monotonic() < until:
            kill_after = draw.uniform(0, 1.5) if draw.random() < KILLED else None
            was_killed = _one_controller(
                draw.randrange(1 << 30), target, account, kill_after, until, done
            )
            done.rounds += 1
            done.killed += was_killed
            target.go()
            assert target.is_alive and not target.bad, target.err
            if not was_killed or draw.random() < 0.3:
                account.run(tracing.detach_as_command, target.pid)
                target.hold(GATE_S)
                after = snapshot(target.pid)
                left = diff(before, after, ignore=("maps",))  # it allocates as it goes
                left = [line for line in left if not is_of_ended_thread(line)]
                left += [name for name in after.maps.values() if "memfd:fentry" in name]
                assert not left, left
                target.go()
        account.run(tracing.detach_as_command, target.pid)
        target.await_calls("f_leaf")
        end = target.stop(GATE_S)
    assert end.is_well, (end.code, end.err)


def is_of_ended_thread(line: str) -> bool:
    """Whether a difference between two snapshots is that of a thread which has ended."""
    # Joined threads are there for a moment more.
    return line.startswith("threads: ") and "absent" in line


def _one_controller(
    seed: int, target: Target, account: Account, kill_after: float | None, until: float, done: Done
) -> bool:
    # A controller in a process of its own; whether it was killed.
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _be_controller(seed, target, account, writer, until)
    os.close(writer)
    was_killed = False
    with os.fdopen(reader) as lines, contextlib.ExitStack() as stack:
        pidfd = os.pidfd_open(child)
        stack.callback(os.close, pidfd)
        if kill_after is not None and not select.select([pidfd], [], [], kill_after)[0]:
            os.kill(child, signal.SIGKILL)
            was_killed = True
        _, status = os.waitpid(child, 0)
        for line in lines:
            if line.endswith("\n"):
                done.add(line)
    assert was_killed or status == 0, f"the controller with seed {seed} failed"
    return was_killed


def _be_controller(seed: int, target: Target, account: Account, writer: int, until: float) -> None:
    try:
        if not account.is_current:
            account.become()
        _Controller(random.Random(seed), target, writer).work(until)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class _Controller:
    # One controller: windows between two moments at the gate, and chaos inside them.
    def __init__(self, draw: random.Random, target: Target, writer: int) -> None:
        self._draw, self._target, self._writer = draw, target, writer
        options = Options(
            buffer_bytes=draw.choice((1 << 16, 1 << 20)),
            mode=draw.choice((MODE_DISCARD, MODE_OVERWRITE)),
            record_bytes=draw.choice((16, 24)),
            max_stop_s=10,
        )
        self._options = options
        try:
            self._session: Session = adopt(target.pid, options)
            self._actions = ["adopted"]
        except (TargetGone, UnfinishedRegistry):
            self._session = attach(target.pid, options)
            self._actions = ["attached"]

    def work(self, until: float) -> None:
        for _ in range(self._draw.randint(1, 6)):
            if time.monotonic() > until:
                break
            self._window()
        self._session.close()

    def _window(self) -> None:
        session, draw = self._session, self._draw
        self._target.hold(GATE_S)
        if not session.ops:
            self._register()
        instances = [session.instance(name) if name else session.top for name in INSTANCES]
        steady = draw.choice(instances)
        counting = [ops for ops in session.ops.values() if ops.callback is Callback.COUNT]
        kept = [ops for ops in session.ops.values() if ops.instance == steady.number]
        kept = [ops for ops in kept if ops.callback is Callback.RECORD] + counting[:1]
        steady.tracing_on = True
        drain(steady)
        made, reached = self._target.counters(), reached_of(steady)
        counts = {ops.id: tracing.counted(session, ops) for ops in counting[:1]}
        self._target.go()
        end = time.monotonic() + draw.uniform(*WINDOW_S)
        while time.monotonic() < end:
            try:
                self._act(kept, steady)
            except StopTimeout:  # a busy machine: nothing was changed, and the accounts show it
                self._actions.append("refused-stop")
        self._target.hold(GATE_S)
        now = Counter(self._target.counters())
        now.subtract(made)
        calls = self._account(kept, steady, now, reached, counts)
        line = f"1 {calls} {' '.join(self._actions)}\n"
        self._actions = []
        os.write(self._writer, line.encode())
        self._target.go()

    def _account(
        self, kept: list[Ops], steady: Instance, made: Counter[str], reached: int,
        counts: dict[int, Counter[str]],
    ) -> int:  # fmt: skip
        session, total = self._session, 0
        for number, before in counts.items():
            ops = session.ops[number]
            found = tracing.counted(session, ops)
            for name in self._functions(ops):
                assert found[name] - before[name] == made[name], (
                    f"{name} counted {found[name] - before[name]}, made {made[name]}, by {ops.text}"
                    f"; found {dict(found)}; {' '.join(self._actions)}"
                )
                total += made[name]
        recording = [ops for ops in kept if ops.callback is Callback.RECORD]
        drain(steady)
        wanted = sum(made[name] for ops in recording for name in self._functions(ops))
        found_total = reached_of(steady) - reached
        assert found_total == wanted, (
            f"instance {steady.name!r}: {found_total} recorded or dropped, made {wanted}, "
            f"by {[ops.text for ops in recording]}; {' '.join(self._actions)}; of {steady.number}: "
            f"{[(o.id, o.instance, o.callback.name, o.text) for o in session.ops.values()]}"
        )
        return total + wanted

    def _functions(self, ops: Ops) -> set[str]:
        table = self._session.functions.table
        ips = table.ip[ops.members & table.traceable].tolist()
        return {name for name in tracing.names_of(self._session, ips) if name.startswith("f_")}

    # -- what it may do --------------------------------------------------------------------------

    def _act(self, kept: list[Ops], steady: Instance) -> None:
        draw, session = self._draw, self._session
        loose = [ops for ops in session.ops.values() if ops not in kept]
        choices = ["register", "consume", "stop", "follow"]
        choices += ["unregister", "unregister", "filter"] if loose else []
        choices.append("tracing_on")
        what = draw.choice(choices)
        if what == "register":
            if len(session.ops) >= MOST_OPS:
                return
            self._register(not_in=steady)
        elif what == "unregister":
            session.unregister(draw.choice(loose))
        elif what == "filter":
            session.set_filter(draw.choice(loose), *self._words())
        elif what == "consume":
            drain(session.instance("one"))
        elif what == "stop":
            with session.target.stopped():
                pass
        elif what == "follow":
            session.follow_modules()
        elif what == "tracing_on":
            other = session.instance(draw.choice([n for n in INSTANCES[1:] if n != steady.name]))
            other.tracing_on = draw.random() < 0.5
        self._actions.append(what)

    def _register(self, *, not_in: Instance | None = None) -> None:
        draw, session = self._draw, self._session
        wanted, notrace = self._words()
        if draw.random() < 0.4:
            session.register(Ops(Callback.COUNT, wanted, notrace))
            return
        name = draw.choice([n for n in INSTANCES if not_in is None or n != not_in.name])
        instance = session.instance(name, self._options) if name else session.top
        instance.register(Ops(Callback.RECORD, wanted, notrace))

    def _words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return draw_words(self._draw, self._session)


def draw_words(
    draw: random.Random, session: Session, *, also_not: str = ""
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Patterns that choose a function that can be traced, and those that take away again: four
    times of five `also_not` as well, if there is one."""
    while True:
        wanted, notrace = draw.choice(FILTERS), draw.choice(NOTRACE)
        if also_not and draw.random() < 0.8:
            notrace = (*notrace, also_not)
        functions = session.functions
        if (functions.match(wanted, notrace) & functions.table.traceable).any():
            return wanted, notrace


def drain(instance: Instance) -> None:
    """Take what its ring has."""
    for _ in instance.consume():
        pass


def reached_of(instance: Instance) -> int:
    """All calls that ever reached its ring, read or not."""
    stats = instance.stats
    return stats.total if stats is not None else 0


def command(run: Callable[[int, float, Account], object]) -> None:
    """The command line of a chaos: what `run(seed, seconds, account)` has found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos, or tests.chaos_together")
    parser.add_argument("--seed", type=int, default=int(np.random.default_rng().integers(1 << 30)))
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--unprivileged", action="store_true", help="as another user, where root")
    wanted = parser.parse_args()
    account = accounts()[-1 if wanted.unprivileged else 0]
    print(f"chaos: seed {wanted.seed}, {wanted.seconds:g} s as {account.name}", flush=True)
    print(f"chaos: pid {os.getpid()}; {run(wanted.seed, wanted.seconds, account)}")


if __name__ == "__main__":
    command(run)
