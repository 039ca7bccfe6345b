"""--max-stop: what would stop the target for longer is refused, never exceeded."""

from __future__ import annotations

import os
import time

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.errors import StopTimeout
from fentry.process.stop import Stop
from fentry.session import Options, attach, run

THREADS = 16


def test_too_many_threads_are_refused_before_one_is_touched(account: Account) -> None:
    with start(build("hot.c"), f"threads={THREADS}", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> str:
            with pytest.raises(StopTimeout) as caught:
                attach(target.pid, Options(max_stop_s=0.0003))
            return str(caught.value)

        said = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        threads = len(os.listdir(f"/proc/{target.pid}/task"))
    assert said.startswith(f"cannot stop process {target.pid}: its {threads} threads take at least")


def test_a_change_that_would_come_too_late_is_not_begun(account: Account) -> None:
    # Enough to stop so many threads, too little to let them go as well: one that takes its time
    # within the stop, as on a slow machine.
    def slow_stop(stop: Stop) -> None:
        time.sleep(0.05)
        read_registers(stop)

    read_registers = Stop._read_registers
    with start(build("hot.c"), f"threads={THREADS}", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> list[str]:
            said = []
            with attach(target.pid, tracing.SMALL) as session:
                session.register(tracing.counting("f_nop5"))
                text = snapshot(target.pid).text
                with pytest.MonkeyPatch.context() as patched:
                    patched.setattr(Stop, "_read_registers", slow_stop)
                    session.target.max_stop_s = 0.08
                    for _ in range(5):
                        with pytest.raises(StopTimeout) as caught:
                            session.register(tracing.recording("f_*"))
                        said.append(str(caught.value))
                assert snapshot(target.pid).text == text
                session.target.max_stop_s = 1.0
                session.register(tracing.recording("f_*"))
                session.target.max_stop_s = 0.0001  # and yet it is restored at the end
            return said

        said = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        target.await_calls("f_plain", 100)
        assert target.stop().is_well
    assert len(said) == 5
    assert any(one.startswith(f"cannot change process {target.pid}") for one in said)


def test_a_command_that_has_not_begun_may_be_held_longer(account: Account) -> None:
    def controller() -> int:
        with run(["true"], Options(max_stop_s=0.0005)) as session:
            session.register(tracing.counting("libc!mal*"))
            session.target.max_stop_s = 1.0
            session.release()
            return session.exit_code()

    assert account.run(controller) == 0
