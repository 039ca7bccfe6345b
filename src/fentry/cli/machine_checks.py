"""What `fentry doctor` looks at on this machine, and of the user who asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from fentry.cli.findings import Finding, ok, problem, warning
from fentry.process.forced import ALWAYS, TRACER, forced_writes
from fentry.process.gates import may_ptrace_anyone, no_suspension, yama_remedy, yama_scope
from fentry.process.namespaces import is_in_initial_user_namespace, sees_own_processes
from fentry.process.proc import possible_cpus, read_status
from fentry.process.target import cpu_flags
from fentry.ring.clock import clock_source

# Documentation/admin-guide/LSM/Yama.rst
_YAMA = {
    1: ("only who allows it, or is started by fentry, can be traced", warning),
    2: ("nobody can be attached to without CAP_SYS_PTRACE", problem),
}
_SELINUX = "/sys/fs/selinux/booleans/deny_ptrace"
_HIDING = ("hidepid=invisible", "hidepid=noaccess", "hidepid=ptraceable",
           "hidepid=1", "hidepid=2", "hidepid=4")  # fmt: skip


def machine() -> list[Finding]:
    """All there is to say of this machine and user."""
    return [finding for check in CHECKS for finding in check()]


def _processors() -> Iterator[Finding]:
    yield ok(f"{possible_cpus()} possible CPUs, Linux {os.uname().release}")


def _clock() -> Iterator[Finding]:
    source = clock_source()
    if source == "tsc":
        yield ok("clock source tsc")
    else:
        yield problem(
            f"clock source {source}: record and arm need tsc, stat does not",
            "fentry record --clock percpu-counter",
        )


def _instructions() -> Iterator[Finding]:
    flags = cpu_flags()
    if "lahf_lm" not in flags:
        yield problem("the processor has no LAHF in 64-bit mode: trampolines need it")
    if "fsgsbase" not in flags:
        yield warning("no FSGSBASE: programs without a thread pointer cannot be traced")
    if "constant_tsc" not in flags:
        yield warning("the processor's time stamp counter changes its pace: times are rough")


def _rights() -> Iterator[Finding]:
    scope = yama_scope()
    if scope >= 3 or (scope and not may_ptrace_anyone()):
        # At 1 a process may have allowed it (PR_SET_PTRACER): only a look at that process tells.
        who, how = _YAMA.get(scope, ("nobody can be attached to", problem))
        text = f"Yama: kernel.yama.ptrace_scope is {scope}: {who}"
        yield how(text, yama_remedy(scope))
    elif not may_ptrace_anyone():
        yield ok("no CAP_SYS_PTRACE: processes of the same user can be attached to")
    elif is_in_initial_user_namespace():
        yield ok("CAP_SYS_PTRACE: any process can be attached to")
    else:
        yield ok("CAP_SYS_PTRACE in a user namespace: any process of it can be attached to")


def _filters() -> Iterator[Finding]:
    why = no_suspension()
    if why and may_ptrace_anyone():
        yield warning(f"processes under seccomp cannot be attached to: {why}")
    if read_status(os.getpid()).seccomp:
        yield warning("fentry itself runs under seccomp: whether its filter lets it trace, only "
                      "trying tells")  # fmt: skip


def _selinux() -> Iterator[Finding]:
    # Two numbers: what is in force, and what is asked for (security/selinux/selinuxfs.c).
    try:
        with open(_SELINUX, encoding="utf-8") as file:
            denied = file.read().split()[0] == "1"
    except OSError:
        return
    if denied:
        yield problem("SELinux: deny_ptrace is on, nobody can be attached to",
                      "setsebool deny_ptrace off")  # fmt: skip


def _processes_seen() -> Iterator[Finding]:
    if not sees_own_processes():
        yield problem(
            "/proc is of another pid namespace than fentry: pids mean other processes",
            "mount -t proc proc /proc, in this container",
        )
    if may_ptrace_anyone():
        return
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        options = [words[3] for words in map(str.split, file) if words[1:3] == ["/proc", "proc"]]
    if options and any(word in _HIDING for word in options[-1].split(",")):
        yield warning("/proc hides processes of other users (hidepid)")


def _forced_writes() -> Iterator[Finding]:
    who = forced_writes()
    if who == ALWAYS:
        return
    remedy = "boot with proc_mem.force_override=always"
    if who == TRACER:
        yield warning("proc_mem.force_override=ptrace: text is written by its tracer only", remedy)
    else:
        yield problem("this kernel writes no text for us (proc_mem.force_override)", remedy)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _processors, _clock, _instructions, _rights, _filters, _selinux, _processes_seen,
    _forced_writes,
)  # fmt: skip
