"""Whether this kernel lets memory be written that its process may only read: text is such memory.

proc_mem.force_override (Linux 6.12), Documentation/admin-guide/kernel-parameters.txt, or the
default that the kernel was built with.
"""

from __future__ import annotations

import mmap
import os

import numpy as np

ALWAYS, TRACER, NEVER = "always", "ptrace", "never"


def forced_writes() -> str:
    """Who may write such memory: ALWAYS who may open it, TRACER its tracer only, NEVER nobody.

    Found out by a write to a page of this process. Where that is refused and the command line of
    the kernel does not say why, it is NEVER.
    """
    with mmap.mmap(
        -1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ
    ) as page:
        view = np.frombuffer(page, np.uint8)
        file = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(file, b"\1", view.ctypes.data)
            return ALWAYS
        except OSError:
            return TRACER if _asked_for() == TRACER else NEVER
        finally:
            os.close(file)
            del view  # else the page cannot be given back


def _asked_for() -> str:
    with open("/proc/cmdline", encoding="utf-8", errors="replace") as file:
        words = [word.partition("=") for word in file.read().split()]
    return next((value for name, _, value in words if name == "proc_mem.force_override"), "")
