"""A process that has switched the time stamp counter off (hard case 108)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import compile_c, fentry, folder_of
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

SOURCE = r"""
#include <sys/prctl.h>
#include <unistd.h>
__attribute__((noinline)) long work(long i) { __asm__ volatile(""); return i + 1; }
int main(void)
{
    if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV))
        return 1;
    write(1, "READY\n", 6);
    for (long i = 0;; i++) {
        work(i);
        usleep(1000);
    }
}
"""


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


def test_it_is_not_made_to_read_the_counter(account: Account, folder: Path) -> None:
    program = compile_c(folder, SOURCE)
    with start(program, account=account, control=False) as target:
        target.await_condition(lambda: "READY" in target.out, "in main", 20)
        before = snapshot(target.pid)
        words = "-p", target.pid, "-F", "work", "-d", "100ms"
        timed = fentry(account, "record", *words, "-o", folder / "t")
        armed = fentry(account, "arm", "-p", target.pid, "-F", "work")
        assert diff(before, snapshot(target.pid)) == []
        counted = fentry(account, "record", *words, "-o", folder / "t", "--clock", "percpu-counter")
        stat = fentry(account, "stat", *words)
        assert diff(before, snapshot(target.pid)) == []
        assert target.is_alive
    assert timed.code == armed.code == 2
    assert f"process {target.pid} must not read the time stamp counter" in timed.err
    assert "try: --clock percpu-counter" in timed.err
    assert (counted.code, stat.code) == (0, 0), counted.err + stat.err
    assert " 0 dropped; 1 functions traced" in counted.err and "work" in stat.out
