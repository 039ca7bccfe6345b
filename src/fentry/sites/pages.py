"""Text pages that became private copies and hold the file's bytes again."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fentry.process.maps import Mapping
from fentry.process.memory import PAGE_BYTES, Memory
from fentry.process.proc import living

_FILE_PAGE = 61  # Documentation/admin-guide/mm/pagemap.rst
_SWAPPED = 62
_PRESENT = 63
_LONGEST_BYTES = 1 << 30
_MOST_RUNS = 64

Runs = list[tuple[int, int]]


def private_runs(
    pid: int, memory: Memory, maps: Sequence[Mapping], patch: NDArray[np.uint64]
) -> Runs:
    """Ranges (start, end) of text to give back with MADV_DONTNEED, so that it is shared again.

    A range holds only pages that are not private, or that hold a site of `patch` and equal the
    file: pages that others changed (breakpoints, relocated text) are never in it.
    """
    runs: Runs = []
    pages = np.unique(patch // np.uint64(PAGE_BYTES)).astype(np.int64)
    for mapping in maps:
        if not (mapping.perms == "r-xp" and mapping.inode):
            continue
        low, high = mapping.start // PAGE_BYTES, mapping.end // PAGE_BYTES
        own = pages[(pages >= low) & (pages < high)]
        if not len(own) or mapping.size > _LONGEST_BYTES:
            continue
        private = _private_pages(pid, low, high)
        if private is None:
            continue
        own = own[private[own - low]]
        equal = _equal_to_file(pid, memory, mapping, own.tolist())
        blocked = private.copy()
        blocked[np.array(equal, np.int64) - low] = False
        runs += _merged(equal, blocked, low)
    return runs[:_MOST_RUNS]


def _merged(equal: list[int], blocked: NDArray[np.bool_], low: int) -> Runs:
    # One run reaches from an equal page to the last one before a page that must stay.
    runs: Runs = []
    for page in equal:
        if runs:
            start, end = runs[-1]
            if not blocked[end // PAGE_BYTES - low : page - low].any():
                runs[-1] = start, (page + 1) * PAGE_BYTES
                continue
        runs.append((page * PAGE_BYTES, (page + 1) * PAGE_BYTES))
    return runs


def _private_pages(pid: int, low: int, high: int) -> NDArray[np.bool_] | None:
    try:
        fd = os.open(f"{living(pid)}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        words = np.frombuffer(os.pread(fd, 8 * (high - low), 8 * low), "<u8")
    finally:
        os.close(fd)
    if len(words) != high - low:
        return None

    def bit(number: int) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = words >> np.uint64(number) & np.uint64(1) != 0
        return result

    return (bit(_PRESENT) | bit(_SWAPPED)) & ~bit(_FILE_PAGE)


def _equal_to_file(pid: int, memory: Memory, mapping: Mapping, pages: list[int]) -> list[int]:
    fd = _open(pid, mapping)
    if fd is None:
        return []
    try:
        return [
            page
            for page in pages
            if memory.read_some(page * PAGE_BYTES, PAGE_BYTES)
            == os.pread(fd, PAGE_BYTES, mapping.offset + page * PAGE_BYTES - mapping.start).ljust(
                PAGE_BYTES, b"\0"
            )
        ]
    finally:
        os.close(fd)


def _open(pid: int, mapping: Mapping) -> int | None:
    folder = living(pid)
    names = [
        f"{folder}/map_files/{mapping.start:x}-{mapping.end:x}",
        f"{folder}/root{mapping.path}",
        f"{folder}/exe",  # also when it has been deleted
    ]
    for name in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        if os.fstat(fd).st_ino == mapping.inode:
            return fd
        os.close(fd)
    return None
