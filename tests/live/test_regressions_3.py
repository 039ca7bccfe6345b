"""Stops that missed threads, waited for each other or trusted too much: each test is one case."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import compile_c, folder_of
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.errors import AttachError, FentryError, TargetGone
from fentry.process.proc import list_tids, read_stat
from fentry.process.remote import Remote
from fentry.process.stub import Call
from fentry.process.target import Target
from fentry.region.registry import find_registry
from fentry.session import Options, attach

MPROTECT = 10
RWX = 7


def test_no_thread_runs_in_a_stop_however_short_threads_live(account: Account) -> None:
    """A thread that is found dead may have made one that the same list does not show."""
    with start(build("relay.c"), account=account) as target:

        def controller() -> Counter[str]:
            states: Counter[str] = Counter()
            ours = Target(target.pid)
            for _ in range(150):
                with ours.stopped():
                    for tid in list_tids(target.pid):
                        try:
                            states[read_stat(target.pid, tid).state] += 1
                        except TargetGone:
                            states["gone"] += 1
            ours.close()
            return states

        states = account.run(controller)
        end = target.stop()
    assert end.is_well, end.err
    assert states["t"] > 150
    assert set(states) <= {"t", "Z", "X", "gone"}


def test_functions_of_threads_that_live_shortly_are_toggled(account: Account) -> None:
    with start(build("relay.c"), account=account) as target:

        def controller() -> None:
            with attach(target.pid, Options(max_stop_s=30)) as session:
                for i in range(60):
                    make = tracing.counting if i % 2 else tracing.recording
                    session.unregister(session.register(make("f_*")))
                    assert target.is_alive and target.bad == 0, i

        account.run(controller, seconds=600)
        target.await_calls("f_relay", 100)
        end = target.stop()
    assert end.is_well, end.err


def test_attach_and_exec_of_another_thread_do_not_wait_for_each_other(account: Account) -> None:
    """PTRACE_SEIZE wants the mutex that an exec holds until our dead tracees are waited for."""
    with start(build("exec_thread.c"), "idle=3", account=account) as target:

        def controller() -> tuple[Counter[str], float]:
            outcomes: Counter[str] = Counter()
            longest = 0.0
            for _ in range(250):
                began = time.monotonic()
                try:
                    ours = Target(target.pid)
                    try:
                        with ours.stopped():
                            outcomes["stopped"] += 1
                    finally:
                        ours.close()
                except TargetGone:
                    outcomes["gone"] += 1
                longest = max(longest, time.monotonic() - began)
            return outcomes, longest

        outcomes, longest = account.run(controller)
        target.await_calls("execs", 2)
        end = target.stop()
    assert outcomes.total() == 250
    assert longest < 5  # a deadlock lasts for ever
    assert end.code == 0, end.err


def test_text_that_the_program_made_writable_is_restored(account: Account) -> None:
    with start(build("hot.c"), "pause_us=100", account=account, hold=True) as target:

        def controller() -> str:
            session = attach(target.pid)
            session.register(tracing.counting("f_*"))
            ip = int(session.functions.symbols.match("f_plain")[0])
            text = next(m for m in session.functions.modules if m.text_low <= ip < m.text_high)
            call = Call(MPROTECT, (text.text_low, text.text_high - text.text_low, RWX))
            with session.target.stopped() as halt:
                Remote(halt.stop, session.target.memory, session.target.room).run([call])
            return tracing.detach_as_command(target.pid)

        said = account.run(controller)
        target.go()
        target.await_calls("f_plain", 10)
        assert "memfd:fentry" not in Path(f"/proc/{target.pid}/maps").read_text()
        assert target.stop().is_well
    assert "21 sites restored" in said


def test_forked_child_cannot_write_what_its_parent_is_patched_by(account: Account) -> None:
    """The registry of a child is its own: it may have given up privileges of its parent."""
    with start(build("forks.c"), "children=1", account=account) as target:

        def controller() -> str:
            from fentry.process.maps import read_maps

            with attach(target.pid) as session:
                session.register(tracing.counting("f_*"))
                mapping = find_registry(read_maps(target.pid))
                assert mapping is not None
                return mapping.perms

        assert account.run(controller) == "rw-p"
        assert target.stop().is_well


SUD = r"""
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
static volatile char selector;
int main(void)
{
    if (prctl(59, 1, 0, 0, &selector)) /* PR_SET_SYSCALL_USER_DISPATCH, on */
        return 77;
    puts("ready");
    fflush(stdout);
    selector = 1; /* from here on a system call is a SIGSYS */
    for (;;)
        ;
}
"""


def test_syscall_user_dispatch_is_refused(account: Account) -> None:
    with folder_of(account) as folder:
        program = compile_c(folder, SUD)
        with start(program, control=False, account=account) as target:
            target.await_condition(lambda: "ready" in target.out, "ready")

            def controller() -> None:
                with pytest.raises(AttachError, match="cannot make system calls"):
                    attach(target.pid)

            account.run(controller)
            assert target.is_alive


FILTERED = r"""
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *filtered(void *unused)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_restart_syscall, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        return unused;
    puts("ready");
    fflush(stdout);
    for (;;)
        poll(0, 0, 100000);
}
int main(void)
{
    pthread_t thread;
    pthread_create(&thread, 0, filtered, 0);
    for (;;)
        usleep(1000);
}
"""


def test_filter_of_a_single_thread_sees_no_restart_syscall(account: Account) -> None:
    with folder_of(account) as folder:
        program = compile_c(folder, FILTERED, "-pthread")
        with start(program, control=False, account=account) as target:
            target.await_condition(lambda: "ready" in target.out, "ready")

            def in_poll() -> bool:
                states = [Path(f"/proc/{target.pid}/task/{tid}/wchan") for tid in target.tids()]
                return any("poll" in state.read_text() for state in states)

            target.await_condition(in_poll, "in poll")

            def controller() -> None:
                for _ in range(5):
                    with attach(target.pid, tracing.SMALL):
                        pass

            account.run(controller)
            assert target.is_alive


def test_interruption_in_a_stop_comes_when_the_target_runs_again(account: Account) -> None:
    """Also where another thread of the controller is the one that gets the signal."""
    with start(build("hot.c"), "threads=3", account=account) as target:

        def controller() -> list[str]:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
            ours = Target(target.pid)
            states = []
            with pytest.raises(KeyboardInterrupt):
                with ours.stopped():
                    signal.raise_signal(signal.SIGINT)
                    states += [read_stat(target.pid, tid).state for tid in target.tids()]
            ours.close()
            return states

        states = account.run(controller)
        target.await_calls("f_plain", 10)
        assert target.stop().is_well
    assert set(states) == {"t"}


def test_detach_that_failed_can_be_repeated(account: Account) -> None:
    with start(build("hot.c"), "pause_us=100", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> None:
            session = attach(target.pid)
            session.register(tracing.counting("f_*"))
            stopped = session.target.stopped

            def refuses(*_: object, **__: object) -> None:
                raise FentryError("not now")

            session.target.stopped = refuses  # type: ignore[assignment, method-assign]
            with pytest.raises(FentryError, match="not now"):
                session.detach()
            session.target.stopped = stopped  # type: ignore[method-assign]
            session.close()

        account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
