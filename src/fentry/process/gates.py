"""Which gate of the kernel keeps us out of a process, and what opens it."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from fentry.errors import AttachError, FentryError, LockError, TargetGone
from fentry.process.namespaces import is_in_initial_user_namespace, namespace_of
from fentry.process.proc import Status, command_of, read_stat, read_status

_CAP_SYS_PTRACE = 19
_CAP_SYS_ADMIN = 21
_NOBODY = 3  # kernel.yama.ptrace_scope


class Gate(NamedTuple):
    """Why the kernel keeps us out, and what opens it."""

    cause: str
    remedy: str


def yama_scope() -> int:
    """kernel.yama.ptrace_scope, 0 where the kernel has no Yama (Documentation/LSM/Yama)."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="utf-8") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def effective_capabilities() -> int:
    """CapEff of this process: bit n is capability n, in its own user namespace."""
    return _own_mask("CapEff")


def may_ptrace_anyone() -> bool:
    """Whether this process holds CAP_SYS_PTRACE."""
    return bool(effective_capabilities() >> _CAP_SYS_PTRACE & 1)


def no_suspension() -> str:
    """Why we cannot suspend a seccomp filter while a target works for us, "" where we can.

    check_ptrace_options(), kernel/ptrace.c: CAP_SYS_ADMIN over the machine, no filter of our own,
    CONFIG_CHECKPOINT_RESTORE, which /proc/sys/kernel/ns_last_pid comes with.
    """
    if not effective_capabilities() >> _CAP_SYS_ADMIN & 1:
        return "we have no CAP_SYS_ADMIN"
    if not is_in_initial_user_namespace():
        return "our CAP_SYS_ADMIN is that of a user namespace only"
    if read_status(os.getpid()).seccomp:
        return "we run under seccomp ourselves"
    if not os.path.exists("/proc/sys/kernel/ns_last_pid"):
        return "this kernel cannot (it has no CONFIG_CHECKPOINT_RESTORE)"
    return ""


def refusal(pid: int, tid: int, error: OSError, tracer: int = 0) -> FentryError:
    """The error to raise after PTRACE_SEIZE of `tid`, or a look at its memory, failed with
    `error`.

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
    return AttachError(what, cause=shut_gate(pid, status).cause, remedy=f"fentry doctor -p {pid}")


def shut_gate(pid: int, status: Status) -> Gate:
    """What keeps us out of a process that we were kept out of, in the order in which the kernel
    asks: __ptrace_may_access(), kernel/ptrace.c."""
    if may_ptrace_anyone() and yama_scope() < _NOBODY:
        if not is_in_initial_user_namespace() and namespace_of(pid, "user") is None:
            return Gate("it may be of a user namespace in which we have no CAP_SYS_PTRACE",
                        "run fentry as root outside of this container")  # fmt: skip
        return Gate("a security module, or a user namespace we have no rights in",
                    "the log of the security module tells: ausearch -m avc, dmesg")  # fmt: skip
    return _of_credentials(status) or _of_rights(pid, status) or _of_security_modules()


def _of_credentials(status: Status) -> Gate | None:
    real, strange = status.uids[0], [u for u in status.uids[:3] if u not in os.getresuid()]
    if strange and real in os.getresuid():
        what = f"it is setuid (runs as uid {strange[0]}) and we have no CAP_SYS_PTRACE"
        return Gate(what, "run fentry as root")
    if strange:
        what = f"it belongs to another user (uid {strange[0]}) and we have no CAP_SYS_PTRACE"
        return Gate(what, "run fentry as root, or as that user")
    groups = [gid for gid in status.gids[:3] if gid not in os.getresgid()]
    if groups:
        what = f"it runs with another group (gid {groups[0]}) and we have no CAP_SYS_PTRACE"
        return Gate(what, "run fentry as root, or with that group (sg)")
    return None


def _of_rights(pid: int, status: Status) -> Gate | None:
    try:
        if os.stat(f"/proc/{pid}/mem").st_uid != status.uids[1]:
            return Gate("it is not dumpable (setuid, setgid, or PR_SET_DUMPABLE 0)",
                        "run fentry as root")  # fmt: skip
    except FileNotFoundError:
        return Gate("it is gone", "pgrep NAME finds a pid")
    more = status.permitted & ~_own_mask("CapPrm")
    if more:
        return Gate(f"it has capabilities that we have not (capsh --decode={more:x} names them)",
                    "run fentry as root")  # fmt: skip
    return None


def _of_security_modules() -> Gate:
    scope = yama_scope()
    if scope >= 1:
        return Gate(f"Yama: kernel.yama.ptrace_scope is {scope}", yama_remedy(scope))
    return Gate("a security module forbids it", "its log tells: ausearch -m avc, dmesg")


def yama_remedy(scope: int) -> str:
    """What opens the gate of Yama at a scope of 1 and more (Documentation/LSM/Yama)."""
    if scope >= _NOBODY:
        return "boot without it: it stays at 3"
    also = ", or let fentry start the program: fentry record -- CMD" if scope == 1 else ""
    return f"run fentry as root, or sysctl kernel.yama.ptrace_scope=0{also}"


def start_time(pid: int) -> int:
    """Clock ticks since boot at which `pid` started: with the pid, a name for one process."""
    return read_stat(pid).start_time


def _own_mask(name: str) -> int:
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1], 16)
    return 0
