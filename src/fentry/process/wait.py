"""Waiting for tracees, and for the end of a child of this process: that is for whoever started it.

Its tracer is its parent: for the kernel one wait is both. So the end of a child is only looked at.
"""

from __future__ import annotations

import os

from fentry.process import ptrace

_ENDED = (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED)
_ANY = ptrace.WALL | os.WNOHANG


def poll(tid: int, *, is_child: bool) -> tuple[int, int]:
    """What os.waitpid() answers for a tracee with __WALL and WNOHANG: (0, 0) or its tid and wait
    status. The end of a child stays to be waited for. Raises ChildProcessError if it is neither."""
    if not is_child:
        return os.waitpid(tid, _ANY)
    # The stop of a tracee is told whether it was asked for or not (wait_task_stopped(),
    # kernel/exit.c), so one look is for both.
    seen = os.waitid(os.P_PID, tid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | _ANY)
    if seen is not None and seen.si_code in _ENDED:
        code: int = seen.si_status
        if seen.si_code == os.CLD_EXITED:
            return tid, code << 8
        return tid, code | 0x80 if seen.si_code == os.CLD_DUMPED else code
    stopped = os.waitid(os.P_PID, tid, os.WSTOPPED | _ANY) if seen is not None else None
    return (0, 0) if stopped is None else (tid, stopped.si_status << 8 | 0x7F)
