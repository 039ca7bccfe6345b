"""What doctor says of processes in unusual states, and that record and stat then do so."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import compile_c, fentry, folder_of
from tests.support.machine import missing
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.process.proc import children_of, read_stat
from fentry.session import attach

V1, V2 = Path("/sys/fs/cgroup/freezer"), (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


@pytest.fixture
def target(account: Account) -> Iterator[Target]:
    with start(build("hot.c"), "threads=2", "pause_us=200", account=account) as running:
        yield running


def said(account: Account, pid: int) -> list[str]:
    """Its lines on a process, which it has not touched."""
    before = snapshot(pid)
    lines = fentry(account, "doctor", "-p", pid).out.splitlines()
    assert diff(before, snapshot(pid), ignore=("threads",)) == []
    return lines


def stat(account: Account, pid: int) -> tuple[int, str]:
    done = fentry(account, "stat", "-p", pid, "-F", "f_*", "-d", "10ms")
    return done.code, done.err


def test_json_has_level_text_and_remedy(account: Account, target: Target) -> None:
    done = fentry(account, "doctor", "-p", target.pid, "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert set(found) == {"machine", "process"}
    assert {"level": "ok", "text": "its memory can be read and written", "remedy": ""} in (
        found["process"]
    )


def test_a_process_stopped_by_a_signal_is_told_and_stays_so(
    account: Account, target: Target
) -> None:
    os.kill(target.pid, signal.SIGSTOP)
    states = lambda: {read_stat(target.pid, tid).state for tid in target.tids()}  # noqa: E731
    target.await_condition(lambda: states() == {"T"}, "stopped")
    lines = said(account, target.pid)
    assert states() == {"T"}
    os.kill(target.pid, signal.SIGCONT)
    assert [line for line in lines if line.endswith(f"try: kill -CONT {target.pid}")] != []
    assert target.stop().is_well


def test_controllers_alive_and_dead_are_named(account: Account, target: Target) -> None:
    def controller() -> tuple[int, list[str]]:
        with attach(target.pid, tracing.SMALL) as session:
            session.register(tracing.counting("f_lea"))
            return os.getpid(), fentry(account, "doctor", "-p", target.pid).out.splitlines()

    def dying() -> None:
        attach(target.pid, tracing.SMALL).register(tracing.counting("f_lea", "f_nop5"))
        os._exit(0)

    pid, alive = account.run(controller)
    child = os.fork()
    if not child:
        try:
            account.become()
            dying()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    dead = said(account, target.pid)
    assert fentry(account, "detach", "-p", target.pid).code == 0
    assert any(line.startswith(f"ok       fentry is attached: process {pid} (") for line in alive)
    assert (
        f"warning  a fentry has died that was attached (process {child}); 2 functions still call "
        f"its code; try: fentry detach -p {target.pid}, or fentry record --adopt"
    ) in dead
    assert not any("died" in line for line in said(account, target.pid))
    assert target.stop().is_well


def test_an_armed_process_is_told(account: Account, target: Target) -> None:
    assert fentry(account, "arm", "-p", target.pid, "-F", "f_lea", "-m", "64K").code == 0
    lines = said(account, target.pid)
    assert fentry(account, "detach", "--force", "-p", target.pid).code == 0
    assert f"ok       it is armed and records f_lea: fentry dump -p {target.pid}" in lines
    assert not any("PERMANENT" in line or "died" in line for line in lines)


def test_a_child_of_a_traced_process_is_told_of_its_calls(account: Account) -> None:
    with start(build("children.c"), account=account, hold=True) as target:

        def controller() -> list[str]:
            with attach(target.pid, tracing.SMALL) as session:
                session.register(tracing.counting("f_*"))
                target.go()
                target.await_calls("f_child")
                (child,) = children_of(target.pid)
                return fentry(account, "doctor", "-p", child).out.splitlines()

        lines = account.run(controller)
    assert any("it was forked from a traced process" in line for line in lines), lines


DESCRIPTORS = """
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>
__attribute__((noipa)) void f_used(void) { usleep(100); }
int main(void)
{
    struct rlimit limit = {64, 64};
    setrlimit(RLIMIT_NOFILE, &limit);
    while (open("/dev/null", O_RDONLY) >= 0)
        ;
    write(1, "go", 2);
    for (;;)
        f_used();
}
"""


def test_a_process_that_may_open_no_more_files_is_told(account: Account) -> None:
    with folder_of(account) as folder:
        program = compile_c(folder, DESCRIPTORS)
        with start(program, account=account, control=False) as target:
            target.await_condition(lambda: target.out == "go", "all used")
            lines = said(account, target.pid)
            before = snapshot(target.pid)
            code, err = stat(account, target.pid)
            assert diff(before, snapshot(target.pid)) == []
    assert any("it may open no more files (RLIMIT_NOFILE)" in line for line in lines), lines
    assert (code, "Too many open files" in err) == (9, True), err


def test_a_limit_of_the_address_space_is_told(account: Account) -> None:
    with start(build("limited.c"), "how=as", "pages=3000", account=account) as target:
        lines = said(account, target.pid)
    assert any("its address space may grow by " in line for line in lines), lines


@contextmanager
def frozen(pid: int) -> Iterator[Path]:
    """Inside, a process is in a frozen control group, of the version that there is."""
    tops = [top for top in V2 if (top / "cgroup.controllers").exists()]
    top = tops[0] if tops else V1
    group = top / f"fentry-test-{os.getpid()}"
    switch, on, off = ("cgroup.freeze", "1", "0") if tops else ("freezer.state", "FROZEN", "THAWED")
    try:
        group.mkdir()
    except OSError as error:
        missing(f"the right to make a control group ({error.strerror})")
    home = next(
        line.split(":", 2)[2]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if (line.startswith("0::") if tops else "freezer" in line.split(":")[1])
    )
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / switch).write_text(on)
        yield group
    finally:
        (group / switch).write_text(off)
        Path(f"{top}{home}/cgroup.procs").write_text(str(pid))
        group.rmdir()


def test_a_frozen_process_is_refused_at_once(account: Account, target: Target) -> None:
    before = snapshot(target.pid)
    with frozen(target.pid) as group:
        state = group / ("cgroup.events" if (group / "cgroup.events").exists() else "freezer.state")
        target.await_condition(
            lambda: bool({"frozen 1", "FROZEN"} & set(state.read_text().splitlines())), "frozen"
        )
        lines = fentry(account, "doctor", "-p", target.pid).out.splitlines()
        code, err = stat(account, target.pid)
    text = f"problem  its control group is frozen: {group}; try: thaw it (docker unpause)"
    assert text in lines
    assert code == 3
    assert err.startswith(f"fentry: cannot stop process {target.pid}: its control group is frozen")
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert stat(account, target.pid)[0] == 0
    assert target.stop().is_well
