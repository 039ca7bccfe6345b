"""System calls that a stop must not interrupt (docs/design/attaching.md, decision 17).

The kernel restarts most calls after a stop: -512 to -514, -516 (include/linux/errno.h).  The
calls here return -EINTR instead, although they did nothing yet; signal(7) lists them.  Turning
-EINTR into -ERESTARTNOHAND leaves the choice to the kernel: EINTR if a handler runs, else again.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from fentry.process.ptrace import Regs

EINTR = 4
ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516

NR_RESTART_SYSCALL = 219

# Numbers: arch/x86/entry/syscalls/syscall_64.tbl
_ALWAYS = frozenset(
    {
        43,  # accept (SO_RCVTIMEO)
        45,  # recvfrom (SO_RCVTIMEO)
        47,  # recvmsg
        44,  # sendto (SO_SNDTIMEO)
        46,  # sendmsg
        65,  # semop
        69,  # msgsnd
        70,  # msgrcv
        128,  # rt_sigtimedwait
        208,  # io_getevents
        220,  # semtimedop
        232,  # epoll_wait
        242,  # mq_timedsend
        243,  # mq_timedreceive
        281,  # epoll_pwait
        288,  # accept4
        299,  # recvmmsg
        307,  # sendmmsg
        333,  # io_pgetevents
        426,  # io_uring_enter
        441,  # epoll_pwait2
    }
)
# Calls that wait with another signal mask than the thread's (sigset_t in their arguments).
MASKED_CALLS = frozenset(
    {
        130,  # rt_sigsuspend
        270,  # pselect6
        271,  # ppoll
        281,  # epoll_pwait
        333,  # io_pgetevents
        426,  # io_uring_enter
        441,  # epoll_pwait2
    }
)
_ON_SOCKETS = frozenset({0, 1, 19, 20})  # read, write, readv, writev: EINTR with a timeout
_INOTIFY = "anon_inode:inotify"

_MASK = (1 << 64) - 1


def kept_restartable(
    pid: int, tid: int, regs: Regs, is_filtered: Callable[[int], bool] = lambda tid: False
) -> bool:
    """Change `regs` so that the kernel restarts an interrupted call; whether it was changed.

    `is_filtered` tells of a thread whether it runs under seccomp: a filter may kill for
    restart_syscall(2), which programs never make themselves, so the call begins again instead.
    """
    if regs.rax == -ERESTART_RESTARTBLOCK & _MASK and regs.orig_rax < 1 << 63:
        if not is_filtered(tid):
            return False
        regs.rax = -ERESTARTNOINTR & _MASK
        return True
    if regs.rax != -EINTR & _MASK or regs.orig_rax >= 1 << 63:
        return False
    if regs.orig_rax not in _ALWAYS and not (
        regs.orig_rax in _ON_SOCKETS and _is_patient(pid, tid, regs.rdi)
    ):
        return False
    regs.rax = -ERESTARTNOHAND & _MASK
    return True


def _is_patient(pid: int, tid: int, fd: int) -> bool:
    # Descriptors whose reads and writes did nothing when they return -EINTR.
    try:
        kind = os.readlink(f"/proc/{pid}/task/{tid}/fd/{fd}")
    except OSError:
        return False
    return kind.startswith("socket:") or kind == _INOTIFY


def resumed(regs: Regs) -> tuple[int, int]:
    """(rip, rax) with which an interrupted thread goes on when the kernel cannot restart for it.

    As arch_do_signal_or_restart does (arch/x86/kernel/signal.c) when no handler runs.
    """
    if regs.orig_rax >= 1 << 63:
        return regs.rip, regs.rax
    match -(regs.rax - (1 << 64)) if regs.rax >= 1 << 63 else 0:
        case 512 | 513 | 514:
            return regs.rip - 2, regs.orig_rax
        case 516:
            return regs.rip - 2, NR_RESTART_SYSCALL
        case _:
            return regs.rip, regs.rax


def is_waiting(regs: Regs) -> bool:
    """Whether the thread was interrupted inside a system call that will go on."""
    return regs.orig_rax < 1 << 63
