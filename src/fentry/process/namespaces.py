"""The namespaces that processes live in, as inode numbers: namespaces(7)."""

from __future__ import annotations

import os

# PROC_USER_INIT_INO and PROC_PID_INIT_INO, include/linux/proc_ns.h
INITIAL_USER = 0xEFFFFFFD
INITIAL_PID = 0xEFFFFFFC


def namespace_of(pid: int, kind: str) -> int | None:
    """The namespace of process `pid` of a `kind` as in /proc/PID/ns; None where it cannot be
    seen: the process is gone, or not ours to look at."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None


def is_in_initial_user_namespace() -> bool:
    """Whether capabilities of this process hold for the whole machine."""
    return namespace_of(os.getpid(), "user") in (INITIAL_USER, None)


def sees_own_processes() -> bool:
    """Whether /proc shows the pid namespace of this process, and pids mean the same to both."""
    return os.readlink("/proc/self") == str(os.getpid())
