"""tests/support/unprivileged.py: what an account can and cannot, and how its answers return."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.support.unprivileged import Account, ChildFailed, ChildTimeout, accounts


def test_the_account_has_its_uid_no_group_and_no_capability(account: Account) -> None:
    status = account.run(lambda: Path("/proc/self/status").read_text())
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    assert fields["Uid"].split() == [str(account.uid)] * 4
    if account.uid:
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    if not account.is_current:
        assert fields["Groups"].split() == []


def test_root_runs_the_suite_as_two_accounts() -> None:
    assert [a.name for a in accounts()] == (
        ["root", "unprivileged"] if os.getuid() == 0 else ["unprivileged"]
    )


def test_an_exception_of_the_child_is_raised_here_with_its_traceback(account: Account) -> None:
    def fail() -> None:
        raise PermissionError(1, "no")

    with pytest.raises(PermissionError, match="no") as caught:
        account.run(fail)

    assert "in fail" in caught.value.__notes__[0]


def test_an_exception_that_does_not_pickle_is_raised_as_text(account: Account) -> None:
    class Local(Exception):
        pass

    def fail() -> None:
        raise Local("inside")

    with pytest.raises(ChildFailed, match="inside"):
        account.run(fail)


def test_a_child_that_hangs_is_killed_in_time(account: Account) -> None:
    begin = time.monotonic()
    with pytest.raises(ChildTimeout):
        account.run(time.sleep, 60, seconds=0.1)

    assert time.monotonic() - begin < 50


def test_a_child_that_dies_is_told_by_its_signal(account: Account) -> None:
    with pytest.raises(ChildFailed, match="SIGKILL"):
        account.run(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_large_answer_comes_back_whole(account: Account) -> None:
    assert len(account.run(bytes, 3_000_000)) == 3_000_000


def test_a_command_is_captured_with_its_exit_code(account: Account) -> None:
    def main() -> None:
        print(sys.argv[1:])
        os.write(1, b"past python\n")
        print("trouble", file=sys.stderr)
        sys.exit(7)

    done = account.call_main(main, ["fentry", "-p", "1"])

    assert (done.code, done.out, done.err) == (7, "['-p', '1']\npast python\n", "trouble\n")


def test_a_command_that_exits_with_a_text_has_code_one(account: Account) -> None:
    done = account.call_main(lambda: sys.exit("bad input"), ["fentry"])

    assert (done.code, done.err) == (1, "bad input\n")
