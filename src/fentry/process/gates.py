"""Which gate of the kernel keeps us out of a process, and what opens it."""

from __future__ import annotations

import errno
import os

from fentry.errors import AttachError, FentryError, LockError, TargetGone
from fentry.process.proc import command_of, read_stat, read_status


def yama_scope() -> int:
    """kernel.yama.ptrace_scope, 0 where the kernel has no Yama (Documentation/LSM/Yama)."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="utf-8") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def effective_capabilities() -> int:
    """CapEff of this process: bit 19 is CAP_SYS_PTRACE, bit 21 CAP_SYS_ADMIN."""
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def may_ptrace_anyone() -> bool:
    """Whether this process holds CAP_SYS_PTRACE."""
    return bool(effective_capabilities() >> 19 & 1)


def refusal(pid: int, tid: int, error: OSError, tracer: int = 0) -> FentryError:
    """The error to raise after PTRACE_SEIZE of `tid` failed with `error`.

    `tracer` is the process seen as its tracer right afterwards, 0 for none.
    """
    if error.errno == errno.ESRCH:
        return TargetGone(f"no process {pid}", remedy="pgrep NAME finds a pid")
    try:
        status = read_status(pid, tid)
    except TargetGone as gone:
        return gone
    what = f"cannot attach to {pid} ({status.name}, uid {status.uids[0]}): {error.strerror}"
    if tracer := tracer or status.tracer_pid:
        locked = LockError(
            what,
            cause=f"already traced by process {tracer} ({command_of(tracer)})",
            remedy="wait for it, or end it",
        )
        locked.holder = tracer
        return locked
    if status.state in "ZX":
        return TargetGone(what, cause="it has exited and waits to be reaped")
    return AttachError(what, cause=_cause(pid, status.uids), remedy=f"fentry doctor -p {pid}")


def _cause(pid: int, uids: tuple[int, ...]) -> str:
    if may_ptrace_anyone():
        return "a security module, or a user namespace we have no rights in"
    mine = os.getresuid()
    if any(uid not in mine for uid in uids[:3]):
        return f"it belongs to another user (uid {uids[0]}) and we have no CAP_SYS_PTRACE"
    try:
        if os.stat(f"/proc/{pid}/mem").st_uid != uids[1]:
            return "it is not dumpable (setuid, setgid, or PR_SET_DUMPABLE 0)"
    except FileNotFoundError:
        return "it is gone"
    if yama_scope() >= 1:
        return f"Yama: kernel.yama.ptrace_scope is {yama_scope()}"
    return "a security module forbids it"


def start_time(pid: int) -> int:
    """Clock ticks since boot at which `pid` started: with the pid, a name for one process."""
    return read_stat(pid).start_time
