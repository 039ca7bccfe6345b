"""What is read of /proc/PID/status, on texts of kernels that this machine does not run."""

from __future__ import annotations

import pytest

from fentry.process import proc

STATUS = b"""Name:\tdemo
State:\tS (sleeping)
Tgid:\t77
Pid:\t77
TracerPid:\t0
Uid:\t1000\t1000\t1000\t1000
Gid:\t100\t100\t5\t5
VmSize:\t    2464 kB
CapPrm:\t0000000000000400
NSpid:\t77\t5
Threads:\t3
Seccomp:\t2
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"x86_Thread_features:\tshstk wrss \n", True),
        (b"x86_Thread_features:\t\nx86_Thread_features_locked:\tshstk\n", False),
        (b"", False),
    ],
)
def test_a_shadow_stack_is_seen(
    monkeypatch: pytest.MonkeyPatch, line: bytes, expected: bool
) -> None:
    monkeypatch.setattr(proc, "_read", lambda path: STATUS + line)

    assert proc.read_status(77).shadow_stack is expected


def test_numbers_of_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "_read", lambda path: STATUS)

    found = proc.read_status(77)
    assert (found.name, found.state, found.tgid, found.ns_pid) == ("demo", "S", 77, 5)
    assert (found.threads, found.seccomp, found.tracer_pid) == (3, 2, 0)
    assert (found.gids, found.permitted, found.vm_bytes) == ((100, 100, 5, 5), 1 << 10, 2523136)
    assert found.ns_pids == (77, 5)
    assert proc.status_number(77, 77, b"Threads") == 3
    assert proc.status_number(77, 77, b"Seccomp") == 2
    assert proc.status_number(77, 77, b"NoSuchLine") == 0
