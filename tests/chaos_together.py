"""Chaos of several controllers: they come, go, die and are followed by others, on one process.

    python -m tests.chaos_together --seed 7 --seconds 600

Up to three controllers are at the program of tests/targets/chaos.c. In each window between two
moments at its gate every one of them keeps some of its ops and does anything with the others, while
one may be killed, another joins or adopts, and the command line looks at the process or detaches
it. What those saw that were kept is held against what the program counted: recorded + dropped =
counted = called = made, for each ops of each controller.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field

from fentry.trampolines.direct import DirectCode
from fentry.trampolines.native import CFunction
from tests.chaos import BUILDS, GATE_S, command, is_of_ended_thread
from tests.chaos_controller import Code, works
from tests.support.beside import Beside, beside
from tests.support.build import build
from tests.support.callbacks import SUM
from tests.support.cli import fentry
from tests.support.process import Target, start
from tests.support.state import State, diff, snapshot
from tests.support.unprivileged import Account

MOST = 3  # controllers at once
LOOKS = (("status",), ("status", "--sites"), ("status", "--touched"), ("status", "--json"),
         ("status", "--sites", "--json"))  # fmt: skip
HITS = "pushfq\nlock incq hits(%rip)\npopfq\nret\n.data\nhits: .quad 0"


@dataclass(slots=True)
class Together:
    """What became of a run."""

    joined: int = 0
    killed: int = 0
    detached: int = 0
    restored: int = 0
    windows: int = 0
    ops: int = 0
    calls: int = 0
    actions: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        actions = ", ".join(f"{count} {name}" for name, count in sorted(self.actions.items()))
        return (
            f"{self.joined} controllers, {self.killed} killed, {self.detached} detached by command;"
            f" {self.restored} times restored; {self.calls:,} calls of {self.ops} ops in "
            f"{self.windows} windows accounted; {actions}"
        )


def run(seed: int, seconds: float, account: Account) -> Together:
    """Chaos of several for some seconds. Raises AssertionError or ChildFailed for any wrong."""
    draw, done = random.Random(seed), Together()
    code = Code(CFunction.compile(SUM), DirectCode.assemble(HITS))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        compiler, flags = draw.choice(BUILDS)
        program = build("chaos.c", flags=flags, compiler=compiler)
        words = (
            f"seed={draw.randrange(1 << 30)}", f"threads={draw.choice((1, 3, 8))}",
            f"signal_us={draw.choice((0, 200, 2000))}", f"library={build('libdso.c')}",
        )  # fmt: skip
        until = min(deadline, time.monotonic() + draw.uniform(10, 40))
        try:
            with start(str(program), *words, account=account) as target:
                _Program(draw, done, target, account, code).run(until)
        except BaseException:
            print(f"chaos: seed {seed}, {program} {' '.join(words)}", file=sys.stderr)
            raise
    return done


class _Program:
    # One program and those who are at it.
    def __init__(
        self, draw: random.Random, done: Together, target: Target, account: Account, code: Code
    ) -> None:
        self._draw, self._done, self._target = draw, done, target
        self._account, self._code = account, code
        self._stack = ExitStack()
        self._at_work: list[Beside] = []

    def run(self, until: float) -> None:
        target, draw = self._target, self._draw
        target.hold(GATE_S)
        before = snapshot(target.pid)
        target.go()
        with self._stack:
            while time.monotonic() < until:
                while len(self._at_work) < MOST and (not self._at_work or draw.random() < 0.5):
                    self._join()
                self._window()
                assert target.is_alive and not target.bad, target.err
                if self._at_work and draw.random() < 0.3:
                    self._leave(draw.choice(self._at_work))
                if draw.random() < 0.1:
                    self._all_gone(before)
            self._all_gone(before)
        target.await_calls("f_leaf")
        end = target.stop(GATE_S)
        assert end.is_well, (end.code, end.err)

    def _join(self) -> None:
        seed = self._draw.randrange(1 << 30)
        one = self._stack.enter_context(
            beside(self._account, works, seed, self._target, self._code)
        )
        self._done.actions[one.hear()] += 1
        self._at_work.append(one)
        self._done.joined += 1

    def _leave(self, one: Beside) -> None:
        self._at_work.remove(one)
        one.ask("leave")
        one.close()

    def _all_gone(self, before: State) -> None:
        draw, target = self._draw, self._target
        every, self._at_work = self._at_work, []
        for one in every:
            if draw.random() < 0.3:
                one.kill()
                self._done.killed += 1
            else:
                one.say("leave")  # all at once
        for one in every:
            if not one._is_gone:
                one.hear()
            one.close()
        told = fentry(self._account, "detach", "--force", "-p", target.pid)
        assert told.code == 0, told
        target.hold(GATE_S)
        left = diff(before, snapshot(target.pid), ignore=("maps",))
        left = [line for line in left if not is_of_ended_thread(line)]
        left += [name for name in snapshot(target.pid).maps.values() if "memfd:fentry" in name]
        assert not left, left
        target.go()
        self._done.restored += 1

    def _window(self) -> None:
        draw, target, done = self._draw, self._target, self._done
        target.hold(GATE_S)
        for one in self._at_work:
            one.ask("open")
        made = target.counters()
        target.go()
        seconds = draw.uniform(0.05, 1)
        for one in self._at_work:
            one.say(("act", seconds))
        is_detached = self._disturb(seconds)
        for one in self._at_work:
            done.actions.update(one.hear())
        target.hold(GATE_S)
        now = Counter(target.counters())
        now.subtract(made)
        for one in list(self._at_work):
            told = one.ask(("close", now))
            if told is None:
                assert is_detached, "a controller was detached and nobody did it"
                self._at_work.remove(one)
                one.close()
                continue
            ops, calls = told
            done.ops += ops
            done.calls += calls
        done.windows += 1
        target.go()

    def _disturb(self, seconds: float) -> bool:
        # From outside, while all are at work; whether everything was detached.
        draw, end, is_detached = self._draw, time.monotonic() + seconds, False
        while time.monotonic() < end:
            what = draw.choices(("wait", "kill", "join", "look", "detach"), (8, 2, 2, 4, 0.3))[0]
            if what == "wait":
                time.sleep(draw.uniform(0, 0.1))
            elif what == "kill" and self._at_work:
                one = self._at_work.pop(draw.randrange(len(self._at_work)))
                time.sleep(draw.uniform(0, 0.05))
                one.kill()
                one.close()
                self._done.killed += 1
            elif what == "join" and len(self._at_work) < MOST:
                self._join()
                self._at_work[-1].say(("act", 0.0))
            elif what == "look":
                words = draw.choice(LOOKS)
                self._command(*words, "-p", self._target.pid, codes=(0,))
            elif what == "detach":
                told = self._command("detach", "-p", self._target.pid, codes=(0, 6))
                is_detached |= not told
                self._done.detached += not told
        return is_detached

    def _command(self, *words: object, codes: tuple[int, ...] = (0,)) -> int:
        told = fentry(self._account, *words)
        self._done.actions[" ".join(map(str, words[:-1]))] += 1
        assert told.code in codes and "Traceback" not in told.err, (words, told)
        return told.code


if __name__ == "__main__":
    command(run)
