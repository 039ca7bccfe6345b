"""One function per ptrace request; errno becomes OSError, never anything else.

Requests and options: include/uapi/linux/ptrace.h.  Register layout: struct user_regs_struct,
arch/x86/include/asm/user_64.h.  All requests must come from the operating system thread that
seized the tracee (ptrace(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import NamedTuple

from fentry.errors import TargetGone

PTRACE_CONT = 7
PTRACE_SINGLESTEP = 9
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SETOPTIONS = 0x4200
PTRACE_GETEVENTMSG = 0x4201
PTRACE_GETREGSET = 0x4204
PTRACE_SETREGSET = 0x4205
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_GETSIGMASK = 0x420A
PTRACE_SETSIGMASK = 0x420B
PTRACE_GET_RSEQ_CONFIGURATION = 0x420F
PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211

PTRACE_O_TRACESYSGOOD = 0x1
PTRACE_O_TRACECLONE = 0x8
PTRACE_O_TRACEEXEC = 0x10
PTRACE_O_EXITKILL = 0x100000
PTRACE_O_SUSPEND_SECCOMP = 0x200000

PTRACE_EVENT_CLONE = 3
PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_STOP = 128

NT_PRSTATUS = 1

WALL = 0x40000000  # __WALL, include/uapi/linux/wait.h

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

_SYS_PIDFD_GETFD = 438
_SYS_KCMP = 312
_KCMP_VM = 1


_REGISTERS = """r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax
                rip cs eflags rsp ss fs_base gs_base ds es fs gs"""


class Regs(ctypes.Structure):
    """struct user_regs_struct: 27 words of 8 bytes, as PTRACE_GETREGSET NT_PRSTATUS gives them."""

    _fields_ = [(name, ctypes.c_uint64) for name in _REGISTERS.split()]

    r15: int
    r14: int
    r13: int
    r12: int
    rbp: int
    rbx: int
    r11: int
    r10: int
    r9: int
    r8: int
    rax: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    orig_rax: int
    rip: int
    cs: int
    eflags: int
    rsp: int
    ss: int
    fs_base: int
    gs_base: int

    def copy(self) -> Regs:
        """The same values in memory of their own."""
        return Regs.from_buffer_copy(self)


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class RseqConfiguration(NamedTuple):
    """struct ptrace_rseq_configuration (Linux 5.13): where a thread's rseq area is."""

    area: int
    size: int
    signature: int


def _request(request: int, tid: int, address: int = 0, data: int = 0) -> int:
    result = _ptrace(request, tid, address, data)
    if result == -1:
        number = ctypes.get_errno()
        if number == errno.ESRCH:
            raise _gone(tid)
        raise OSError(number, os.strerror(number))
    return int(result)


def _gone(tid: int) -> TargetGone:
    # Killed in our hands: it is no more, or not stopped any more. Still an OSError with its errno.
    gone = TargetGone(f"thread {tid} is gone", cause="it was killed, or replaced by an exec")
    gone.errno = errno.ESRCH
    return gone


def seize(tid: int, options: int) -> None:
    """Become tracer of `tid` without stopping it. Raises OSError EPERM, ESRCH."""
    _request(PTRACE_SEIZE, tid, 0, options)


def interrupt(tid: int) -> None:
    """Ask a seized thread to stop; the stop is PTRACE_EVENT_STOP."""
    _request(PTRACE_INTERRUPT, tid)


def cont(tid: int, signal: int = 0) -> None:
    """Let a stopped thread run, delivering `signal`."""
    _request(PTRACE_CONT, tid, 0, signal)


def cont_to_syscall(tid: int, signal: int = 0) -> None:
    """Let a stopped thread run to the next entry or exit of a system call."""
    _request(PTRACE_SYSCALL, tid, 0, signal)


def single_step(tid: int) -> None:
    """Let a stopped thread run one instruction.

    Only for a process that dies with us (PTRACE_O_EXITKILL): a dying tracer leaves TF set.
    """
    _request(PTRACE_SINGLESTEP, tid)


def detach(tid: int, signal: int = 0) -> None:
    """Leave a stopped thread, which runs on (or stays in its group stop)."""
    _request(PTRACE_DETACH, tid, 0, signal)


def set_options(tid: int, options: int) -> None:
    """Replace the options of a stopped thread."""
    _request(PTRACE_SETOPTIONS, tid, 0, options)


def event_message(tid: int) -> int:
    """The message of the current event stop: the new tid of PTRACE_EVENT_CLONE."""
    value = ctypes.c_ulong()
    _request(PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(value))
    return value.value


def get_regs(tid: int) -> Regs:
    """General registers of a stopped thread."""
    regs = Regs()
    vector = _IoVec(ctypes.addressof(regs), ctypes.sizeof(regs))
    _request(PTRACE_GETREGSET, tid, NT_PRSTATUS, ctypes.addressof(vector))
    if vector.length != ctypes.sizeof(regs):
        raise OSError(errno.ENOEXEC, "not a 64-bit thread")
    return regs


def set_regs(tid: int, regs: Regs) -> None:
    """Set all general registers of a stopped thread at once."""
    vector = _IoVec(ctypes.addressof(regs), ctypes.sizeof(regs))
    _request(PTRACE_SETREGSET, tid, NT_PRSTATUS, ctypes.addressof(vector))


def get_sigmask(tid: int) -> int:
    """Blocked signals of a stopped thread: bit n - 1 is signal n."""
    value = ctypes.c_uint64()
    _request(PTRACE_GETSIGMASK, tid, 8, ctypes.addressof(value))
    return value.value


def set_sigmask(tid: int, mask: int) -> None:
    """Set the blocked signals of a stopped thread."""
    value = ctypes.c_uint64(mask)
    _request(PTRACE_SETSIGMASK, tid, 8, ctypes.addressof(value))


def rseq_configuration(tid: int) -> RseqConfiguration | None:
    """Where the thread registered its rseq area; None if it did not, or the kernel cannot tell."""
    words = (ctypes.c_uint32 * 6)()
    try:
        _request(PTRACE_GET_RSEQ_CONFIGURATION, tid, ctypes.sizeof(words), ctypes.addressof(words))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EIO):
            return None
        raise
    area = words[0] | words[1] << 32
    return RseqConfiguration(area, words[2], words[3]) if area else None


def dispatches_syscalls(tid: int) -> bool:
    """Whether the thread gets SIGSYS for its system calls (PR_SET_SYSCALL_USER_DISPATCH).

    struct ptrace_sud_config: mode, selector, offset, len, u64 each (Linux 6.4); an older kernel
    cannot tell.
    """
    words = (ctypes.c_uint64 * 4)()
    request = PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
    try:
        _request(request, tid, ctypes.sizeof(words), ctypes.addressof(words))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EIO):
            return False
        raise
    return words[0] != 0


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A duplicate of the target's descriptor `fd` in this process (Linux 5.6)."""
    result = _syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def share_memory(pid: int, other: int) -> bool | None:
    """Whether two processes have one address space (kcmp(2) KCMP_VM); None if not to be known."""
    result = _syscall(_SYS_KCMP, pid, other, _KCMP_VM, 0, 0)
    return None if result < 0 else result == 0
