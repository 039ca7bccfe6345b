"""Targets as the tests hold them: started, awaited, gated, ended, and always cleaned up."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.control import Control
from tests.support.unprivileged import Account, allow_any_tracer

END_LINE = re.compile(r"^END (.*)$", re.MULTILINE)
POLL_SECONDS = 0.001


class TargetFailed(AssertionError):
    """A target did not get ready, did not end in time, or died; the text has its output."""


@dataclass(frozen=True, slots=True)
class End:
    """How a target ended.

    `code` is as in subprocess (negative: a signal). `counters` are summed by name and are there
    also for a target that was killed. `printed` says whether it printed its END line.
    """

    code: int
    bad: int
    counters: Counter[str]
    printed: bool
    out: str
    err: str

    @property
    def calls(self) -> int:
        """Calls of all functions named f_..."""
        return sum(count for name, count in self.counters.items() if name.startswith("f_"))

    @property
    def eintr(self) -> dict[str, int]:
        """System calls that saw EINTR, with the number of times; empty when none did."""
        return {
            name.removeprefix("eintr."): count
            for name, count in self.counters.items()
            if name.startswith("eintr.") and count
        }

    @property
    def is_well(self) -> bool:
        return self.code == 0 and self.bad == 0 and not self.eintr


class Target:
    """A running program of tests/targets, or any other one (`control` None)."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: Control | None, directory: Path
    ) -> None:
        self.process = process
        self.control = control
        self.directory = directory
        self._pidfd = os.pidfd_open(process.pid)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> str:
        return (self.directory / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        return (self.directory / "err").read_text(errors="replace")

    @property
    def bad(self) -> int:
        """Failed self-checks so far."""
        return self._page.bad

    @property
    def _page(self) -> Control:
        assert self.control is not None, "this program was started without a control page"
        return self.control

    @property
    def is_alive(self) -> bool:
        """Whether it runs; also true to ask in a process whose child it is not."""
        return not select.select([self._pidfd], [], [], 0)[0]

    def counters(self) -> Counter[str]:
        """The counters at this moment; exact while the gate holds."""
        return self._page.counters()

    def tids(self) -> list[int]:
        return sorted(int(name) for name in os.listdir(f"/proc/{self.pid}/task"))

    def await_ready(self, seconds: float = 20) -> None:
        self.await_condition(lambda: self._page.ready, "ready", seconds)

    def await_calls(self, name: str, more: int = 1, seconds: float = 20) -> None:
        """Wait until the counter `name` grew by `more` from now: the target is at work."""
        wanted = self.counters()[name] + more
        self.await_condition(lambda: self.counters()[name] >= wanted, f"{name} += {more}", seconds)

    def hold(self, seconds: float = 20) -> Counter[str]:
        """Close the gate, wait until every worker is at it; the then exact counters."""
        # Who was told to go and has not run since would be taken for one who is here again.
        self.await_condition(lambda: not self._page.leaving, "those told to go gone", seconds)
        self._page.hold()
        self.await_condition(lambda: self._page.parked, "all workers at the gate", seconds)
        return self.counters()

    def go(self) -> None:
        """Open the gate."""
        self._page.go()

    def wish(self, number: int) -> None:
        """Tell the target a number that it understands; its head says how."""
        self._page.wish(number)

    def stop(self, seconds: float = 20) -> End:
        """Let the target finish by itself; raises TargetFailed if it does not in time."""
        self._page.stop()
        return self.await_end(seconds)

    def kill(self, number: signal.Signals = signal.SIGKILL, seconds: float = 20) -> End:
        """Send a deadly signal to this pid alone, and wait."""
        if self.is_alive:
            self.process.send_signal(number)
        return self.await_end(seconds)

    def await_end(self, seconds: float = 20) -> End:
        """How it ended; raises TargetFailed after `seconds` if it still runs."""
        if not select.select([self._pidfd], [], [], seconds)[0]:
            raise TargetFailed(f"pid {self.pid} still runs after {seconds} s\n{self.story()}")
        code = self.process.wait()
        match = END_LINE.search(self.out)
        bad = self.control.bad if self.control else 0
        counters = self.control.counters() if self.control else Counter()
        return End(code, bad, counters, match is not None, self.out, self.err)

    def await_condition(self, holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """Poll until `holds()`; raises TargetFailed if the target dies or time is up."""
        deadline = time.monotonic() + seconds
        while not holds():
            if select.select([self._pidfd], [], [], POLL_SECONDS)[0] and not holds():
                self.process.wait()
                raise TargetFailed(f"died waiting for {what}\n{self.story()}")
            if time.monotonic() > deadline:
                raise TargetFailed(f"not {what} after {seconds} s\n{self.story()}")

    def close(self) -> None:
        """Kill it if it still runs, reap it, remove its files."""
        if self.is_alive:
            if self.control is not None:
                self._end_gently()
            self.process.kill()
            self.process.wait()
        os.close(self._pidfd)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end_gently(self) -> None:
        # Some targets hold things the kernel does not free for them (System V queues).
        self._page.stop()
        select.select([self._pidfd], [], [], 5)

    def story(self) -> str:
        """Its command, how it ended if it has, and the end of what it wrote."""
        return (
            f"command: {self.process.args!r}\nreturn code: {self.process.returncode}\n"
            f"stdout: {self.out[-2000:]}\nstderr: {self.err[-4000:]}"
        )


@contextmanager
def start(
    program: str | Path,
    *arguments: str | int,
    account: Account | None = None,
    hold: bool = False,
    control: bool = True,
    ready: bool = True,
    environment: dict[str, str] | None = None,
) -> Iterator[Target]:
    """A program at work, run by `account` (default: ours); dead and reaped on leaving.

    Targets of tests/targets take arguments like "threads=4" and share a control page; for any
    other program say control=False (then wait for it yourself with `await_condition`). With
    `hold` the workers start at the closed gate: attach, go(), hold(), and the counters are
    exactly the calls made between. Output goes to files.
    """
    account = account or Account("current", os.getuid())
    directory = Path(tempfile.mkdtemp(prefix="fentry-target-"))
    directory.chmod(0o755)
    page = None
    variables = {**os.environ, **(environment or {})}
    try:
        if control:
            page = Control.create(directory / "control", owner=account.uid, hold=hold)
            variables["FENTRY_BED"] = str(page.path)
        process = _spawn([str(program), *map(str, arguments)], account, directory, variables)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    target = Target(process, page, directory)
    try:
        if control and ready:
            target.await_ready()
            if hold:
                target.hold()
        yield target
    except BaseException as error:
        if not target.is_alive:  # a test may fail on what it meets first, a target that is gone
            target.process.wait()
            error.add_note(f"the target had ended by then\n{target.story()}")
        raise
    finally:
        target.close()


def _spawn(
    command: Sequence[str], account: Account, directory: Path, variables: dict[str, str]
) -> subprocess.Popen[bytes]:
    identity = {} if account.is_current else {"uid": account.uid}
    with open(directory / "out", "wb") as out, open(directory / "err", "wb") as err:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd="/",
            env=variables,
            user=identity.get("uid"),
            group=identity.get("uid"),
            extra_groups=None if account.is_current else [],
            preexec_fn=allow_any_tracer,
        )
