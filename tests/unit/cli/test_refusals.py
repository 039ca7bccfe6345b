"""What a person is told when the kernel refuses an attach: the gate, and what opens it."""

from __future__ import annotations

import errno
import os

import pytest

from fentry.errors import AttachError, LockError, TargetGone
from fentry.process import gates
from fentry.process.proc import Status

REFUSED = OSError(errno.EPERM, "Operation not permitted")


def status(
    *, uid: int, tracer: int = 0, state: str = "S", runs_as: int | None = None,
    gid: int | None = None, permitted: int = 0,
) -> Status:  # fmt: skip
    effective = uid if runs_as is None else runs_as
    return Status(
        name="victim", state=state, tgid=os.getpid(), tracer_pid=tracer,
        uids=(uid, effective, effective, effective), ns_pid=os.getpid(), threads=1, seccomp=0,
        gids=(os.getgid() if gid is None else gid,) * 4, permitted=permitted,
    )  # fmt: skip


def told(monkeypatch: pytest.MonkeyPatch, found: Status, *, scope: int = 0) -> Exception:
    monkeypatch.setattr(gates, "may_ptrace_anyone", lambda: False)
    monkeypatch.setattr(gates, "yama_scope", lambda: scope)
    monkeypatch.setattr(gates, "read_status", lambda pid, tid: found)
    return gates.refusal(os.getpid(), os.getpid(), REFUSED)


@pytest.mark.parametrize("scope", [1, 2, 3])
def test_yama_is_named_with_its_scope(monkeypatch: pytest.MonkeyPatch, scope: int) -> None:
    error = told(monkeypatch, status(uid=os.getuid()), scope=scope)
    assert isinstance(error, AttachError)
    assert str(error).splitlines() == [
        f"cannot attach to {os.getpid()} (victim, uid {os.getuid()}): Operation not permitted",
        f"  cause: Yama: kernel.yama.ptrace_scope is {scope}    "
        f"try: fentry doctor -p {os.getpid()}",
    ]


def test_another_user_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = told(monkeypatch, status(uid=os.getuid() + 1))
    assert isinstance(error, AttachError)
    assert f"it belongs to another user (uid {os.getuid() + 1})" in str(error)


def test_a_setuid_program_is_not_taken_for_that_of_another_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = told(monkeypatch, status(uid=os.getuid(), runs_as=os.getuid() + 1))
    assert f"it is setuid (runs as uid {os.getuid() + 1}) and we have no" in str(error)


def test_another_group_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = told(monkeypatch, status(uid=os.getuid(), gid=os.getgid() + 1))
    assert f"it runs with another group (gid {os.getgid() + 1})" in str(error)


def test_capabilities_that_we_have_not_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_own_mask", lambda name: 0x3)
    error = told(monkeypatch, status(uid=os.getuid(), permitted=0x402), scope=1)
    assert "it has capabilities that we have not (capsh --decode=400 names them)" in str(error)


def test_another_tracer_is_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    error = told(monkeypatch, status(uid=os.getuid(), tracer=os.getpid()))
    assert isinstance(error, LockError)
    assert f"already traced by process {os.getpid()} (" in str(error)


def test_a_zombie_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(told(monkeypatch, status(uid=os.getuid(), state="Z")), TargetGone)


def test_a_process_that_vanished_is_gone() -> None:
    gone = OSError(errno.ESRCH, "No such process")
    assert isinstance(gates.refusal(1, 1, gone), TargetGone)
