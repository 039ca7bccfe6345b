"""A thread of a running target brought to stand at a chosen instruction, and left stopped there."""

from __future__ import annotations

import ctypes
import os
import signal

from fentry.process import ptrace

# Debug registers in struct user (sys/user.h, u_debugreg); SDM Vol. 3B, 18.2: bit 0 of DR7 makes
# the address in DR0 a breakpoint for execution, which traps before the instruction runs.
_PTRACE_POKEUSER = 6
_DR0, _DR7 = 848, 848 + 7 * 8
_libc = ctypes.CDLL(None, use_errno=True)


def stop_at(tid: int, address: int) -> None:
    """Let a thread run until it is about to run `address`; leave its process stopped (SIGSTOP).

    Nobody else may trace it.
    """
    ptrace.seize(tid, 0)
    ptrace.interrupt(tid)
    os.waitpid(tid, ptrace.WALL)
    _poke_user(tid, _DR0, address)
    _poke_user(tid, _DR7, 1)
    ptrace.cont(tid)
    _, status = os.waitpid(tid, ptrace.WALL)
    assert os.WSTOPSIG(status) == signal.SIGTRAP, status
    _poke_user(tid, _DR7, 0)
    assert ptrace.get_regs(tid).rip == address
    ptrace.detach(tid, signal.SIGSTOP)


def _poke_user(tid: int, offset: int, value: int) -> None:
    words = (ctypes.c_long(_PTRACE_POKEUSER), ctypes.c_long(tid))
    if _libc.ptrace(*words, ctypes.c_void_p(offset), ctypes.c_void_p(value)):
        raise OSError(ctypes.get_errno(), "cannot set a debug register")
