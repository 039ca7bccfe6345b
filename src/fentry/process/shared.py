"""Memory that the target and this process both map, behind a memfd of the target's making."""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np
from numpy.typing import NDArray

from fentry.errors import RegionError
from fentry.process import ptrace
from fentry.process.proc import living

_F_ADD_SEALS = 1033  # include/uapi/linux/fcntl.h
_F_GET_SEALS = 1034
_SEALS = 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW


class SharedMemory:
    """A mapping of the whole memfd; `bytes` is a writable uint8 view of it."""

    def __init__(self, fd: int, count: int) -> None:
        self._map = mmap.mmap(fd, count, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.bytes: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.bytes)


def fetch(pid: int, fd: int) -> int:
    """A duplicate, in this process, of descriptor `fd` of process `pid`."""
    folder = living(pid)
    if folder != f"/proc/{pid}":  # a process whose leader has ended: that one has no files
        return os.open(f"{folder}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    pidfd = os.pidfd_open(pid)
    try:
        return ptrace.pidfd_getfd(pidfd, fd)
    finally:
        os.close(pidfd)


def size_and_seal(fd: int, count: int) -> None:
    """Give a fresh memfd its size for ever. Raises RegionError when there is no memory for it."""
    try:
        os.ftruncate(fd, count)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    except OSError as error:
        raise RegionError(
            f"cannot make shared memory of {count} bytes: {error.strerror}",
            cause="a limit on file size or memory",
            remedy="a smaller buffer (-m)",
        ) from error


def is_sealed(fd: int) -> bool:
    """Whether nobody can shrink the memory under a reader."""
    return fcntl.fcntl(fd, _F_GET_SEALS) & _SEALS == _SEALS
