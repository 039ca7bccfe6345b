"""The target's memory through one /proc/PID/mem descriptor.

The descriptor is bound to the address space it was opened on (fs/proc/base.c, mem_open): after
an exec of the target it reads and writes nothing, so a new image can never be hit.  Writes go to
private read-only and executable mappings as well (FOLL_FORCE), and the kernel copies them in
pieces of one page counted from the start of the buffer and cut at page ends.
"""

from __future__ import annotations

import errno
import os
import time

import numpy as np
from numpy.typing import NDArray

from fentry.errors import PatchError, TargetGone
from fentry.process.gates import refusal
from fentry.process.gather import MOST_PIECES, Gather, Places
from fentry.process.proc import living

PAGE_BYTES = 4096

_EXEC_S = 0.05


def _open(pid: int) -> int:
    # In the middle of an exec a process is nobody's to look at, for microseconds.
    deadline = time.monotonic() + _EXEC_S
    while True:
        try:
            return os.open(f"{living(pid)}/mem", os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.001)


class Memory:
    """Memory of process `pid` at the time of the call; close() when done."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._fd = _open(pid)
        except PermissionError as error:
            raise refusal(pid, pid, error) from error
        except (FileNotFoundError, ProcessLookupError) as error:
            raise TargetGone(f"no process {pid}", remedy="pgrep NAME finds a pid") from error

    def close(self) -> None:
        """Give the descriptor back; the memory counts as gone from now on."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def read(self, address: int, count: int) -> bytes:
        """Exactly `count` bytes at `address`.

        Raises TargetGone when the address space no longer exists, PatchError when a byte of the
        range is not mapped.
        """
        piece = self.read_some(address, count)
        if len(piece) != count:
            raise PatchError(
                f"cannot read {count} bytes at {address:#x}: {len(piece)} are mapped",
                address=address,
                cause="the memory was unmapped meanwhile",
            )
        return piece

    def read_some(self, address: int, count: int) -> bytes:
        """At most `count` bytes at `address`, as many as are mapped without a hole."""
        parts = []
        while count:
            try:
                part = os.pread(self._fd, min(count, 1 << 24), address)
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EFAULT):
                    raise
                break
            if not part:
                raise TargetGone(
                    f"process {self.pid} has no such address space any more",
                    cause="it ended, or replaced itself by exec",
                )
            parts.append(part)
            address += len(part)
            count -= len(part)
        return b"".join(parts)

    def read_joined(self, places: Places) -> tuple[NDArray[np.uint8], list[int]]:
        """What read_some() gives for each of the `places` (address, count), one behind the other,
        by one system call where that can be: uint8[n], and the bytes of each."""
        found = Gather(self.pid, places).read() if 1 < len(places) <= MOST_PIECES else None
        if found is not None:
            return found, [count for _, count in places]
        pieces = [self.read_some(address, count) for address, count in places]
        return np.frombuffer(b"".join(pieces), np.uint8), [len(piece) for piece in pieces]

    def is_alive(self) -> bool:
        """Whether the address space still has a process."""
        if self._fd < 0:
            return False
        try:
            return os.pread(self._fd, 1, 0) != b""
        except OSError as error:
            if error.errno in (errno.EIO, errno.EFAULT):
                return True
            raise

    def write(self, address: int, piece: bytes | bytearray | memoryview) -> None:
        """Write all of `piece` at `address`.

        Raises TargetGone when the address space no longer exists, PatchError when the kernel
        refuses (shared mapping without write permission, proc_mem.force_override=never).
        """
        view = memoryview(piece)
        while view:
            try:
                done = os.pwrite(self._fd, view, address)
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EFAULT, errno.EACCES, errno.EPERM):
                    raise
                raise PatchError(
                    f"cannot write {len(view)} bytes at {address:#x}: {error.strerror}",
                    address=address,
                    cause="not mapped, a shared mapping, or the kernel forbids forced writes",
                    remedy=f"fentry doctor -p {self.pid}",
                ) from error
            if not done:
                raise TargetGone(
                    f"process {self.pid} has no such address space any more",
                    cause="it ended, or replaced itself by exec",
                )
            view = view[done:]
            address += done

    def read_u64(self, address: int) -> int:
        """The little-endian word of 8 bytes at `address`."""
        return int.from_bytes(self.read(address, 8), "little")

    def write_u64(self, address: int, value: int) -> None:
        """Store a word of 8 bytes at `address`."""
        self.write(address, (value & (1 << 64) - 1).to_bytes(8, "little"))
