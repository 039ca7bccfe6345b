"""tests/support/process.py: targets start, wait at the gate, end and are always cleaned up."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.build import build
from tests.support.process import TargetFailed, start
from tests.support.unprivileged import Account

QUIET = ("threads=2", "pause_us=300")


def test_a_target_runs_as_the_account_and_ends_well(account: Account) -> None:
    with start(build("hot.c"), *QUIET, account=account) as target:
        target.await_calls("f_plain", more=10)
        assert os.stat(f"/proc/{target.pid}").st_uid == account.uid
        end = target.stop()

    assert end.is_well and end.printed
    assert f" f_plain={end.counters['f_plain']} " in end.out
    assert end.counters["f_tail"] == end.counters["f_target"] > 10


def test_counters_stand_still_while_the_gate_holds_and_go_on_afterwards() -> None:
    with start(build("hot.c"), *QUIET) as target:
        held = target.hold()
        assert target.counters() == held
        target.go()
        target.await_calls("f_plain")
        assert target.stop().calls > sum(v for k, v in held.items() if k.startswith("f_"))


def test_a_target_started_at_the_closed_gate_has_called_nothing() -> None:
    with start(build("overflow.c"), "threads=4", "calls=1000", hold=True) as target:
        assert target.hold()["f_busy"] == 0
        target.go()
        target.await_condition(lambda: target.counters()["f_busy"] == 4000, "done")
        assert target.stop().counters["f_busy"] == 4000


def test_counters_survive_a_target_that_was_killed() -> None:
    with start(build("exits.c"), "how=kill", "at=12345", ready=False) as target:
        end = target.await_end()

    assert (end.code, end.counters["f_last"], end.printed) == (-signal.SIGKILL, 12345, False)


@pytest.mark.parametrize(
    ("how", "code"), [("exit", 0), ("_exit", 3), ("segv", -11), ("abort", -6), ("thread", 4)]
)
def test_exits_dies_as_asked(how: str, code: int) -> None:
    with start(build("exits.c"), f"how={how}", "at=5000", ready=False) as target:
        end = target.await_end()

    assert end.code == code
    assert end.counters["f_last"] >= 5000


def test_a_target_that_dies_early_is_told_with_its_words(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho last words >&2\nexit 3\n")
    program.chmod(0o755)

    with pytest.raises(TargetFailed, match="last words"), start(program):
        pytest.fail("it got ready")


def test_a_target_that_does_not_end_is_told_and_still_cleaned_up() -> None:
    with (
        pytest.raises(TargetFailed, match="still runs"),
        start("/bin/sleep", 60, control=False) as t,
    ):
        pid, directory = t.pid, t.directory
        t.await_end(seconds=0.05)

    assert not Path(f"/proc/{pid}").exists()
    assert not directory.exists()


def test_a_test_that_fails_leaves_no_process_behind() -> None:
    with pytest.raises(ZeroDivisionError), start(build("storm.c")) as target:
        pid = target.pid
        raise ZeroDivisionError

    assert not Path(f"/proc/{pid}").exists()


def test_no_message_queue_or_semaphore_is_left_when_a_test_ends_early() -> None:
    def ids(kind: str) -> set[int]:
        done = subprocess.run(["ipcs", kind], capture_output=True, text=True, check=True)
        rows = [line.split() for line in done.stdout.splitlines() if line.startswith("0x")]
        return {int(row[1]) for row in rows}

    with start(build("syscalls.c")) as target:
        target.await_calls("n.poll")
        own = target.counters()
        assert own["id.queue"] in ids("-q") and own["id.semaphore"] in ids("-s")

    assert own["id.queue"] not in ids("-q")
    assert own["id.semaphore"] not in ids("-s")
