"""The only writer of the target's text (text_poke): verify, write, read back, or roll back whole.

All threads are stopped.  The bytes that are replaced never cross a page; writes begin at a page and
end inside one, because the kernel copies /proc/PID/mem writes in pieces counted from the start of
the buffer and cut at page ends: a writer killed meanwhile leaves whole pieces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fentry.errors import PatchError
from fentry.process.memory import PAGE_BYTES, Memory

POKE_BYTES = 5

Addresses = NDArray[np.uint64]
Pokes = NDArray[np.uint8]

_LONGEST_RUN = 256


class SiteReadError(PatchError):
    """The bytes of a site cannot be read."""


class SiteMismatchError(PatchError):
    """A site does not hold what it should: somebody else changed it."""


class SiteWriteError(PatchError):
    """The bytes of a site cannot be written; all sites are as they were."""


def read_pokes(memory: Memory, addresses: Addresses) -> Pokes:
    """The five bytes at each address: uint8[n, 5]. Raises SiteReadError."""
    found = np.empty((len(addresses), POKE_BYTES), np.uint8)
    for members, start, text in _runs(memory, addresses):
        offsets = (addresses[members] - np.uint64(start)).astype(np.int64)
        found[members] = text[offsets[:, None] + np.arange(POKE_BYTES)]
    return found


def read_mapped(memory: Memory, addresses: Addresses) -> tuple[Pokes, NDArray[np.bool_]]:
    """The five bytes at each address where they are mapped, and which are: uint8[n, 5], bool[n]."""
    found = np.zeros((len(addresses), POKE_BYTES), np.uint8)
    mapped = np.zeros(len(addresses), np.bool_)
    for members, start, text in _runs(memory, addresses, partly=True):
        offsets = (addresses[members] - np.uint64(start)).astype(np.int64)
        there = offsets + POKE_BYTES <= len(text)
        found[members[there]] = text[offsets[there, None] + np.arange(POKE_BYTES)]
        mapped[members[there]] = True
    return found, mapped


def differ(found: Pokes, wanted: Pokes, widths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which sites differ in the first widths[i] of their five bytes: bool[n]."""
    unlike: NDArray[np.bool_] = ((found != wanted) & _first(widths)).any(axis=1)
    return unlike


def mismatches(memory: Memory, addresses: Addresses, expected: Pokes) -> NDArray[np.bool_]:
    """Which sites do not hold what is expected, or are not mapped any more: bool[n]."""
    found, mapped = read_mapped(memory, addresses)
    wrong: NDArray[np.bool_] = ~mapped | (found != expected).any(axis=1)
    return wrong


def windows_differ(
    memory: Memory, addresses: Addresses, original: Pokes, sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which sites do not hold the first sizes[i] bytes of original[i], or are not mapped: bool[n].

    `original` is uint8[n, 16] or shorter.
    """
    width = original.shape[1]
    wrong = np.ones(len(addresses), np.bool_)
    wanted = np.arange(width) < sizes[:, None]
    for members, start, text in _runs(memory, addresses, partly=True, beyond=width - POKE_BYTES):
        offsets = (addresses[members] - np.uint64(start)).astype(np.int64)
        places = offsets[:, None] + np.arange(width)
        there = places < len(text)
        found = np.zeros(places.shape, np.uint8)
        found[there] = text[places[there]]
        same = ~wanted[members] | (there & (found == original[members]))
        wrong[members] = ~same.all(axis=1)
    return wrong


def poke(
    memory: Memory,
    addresses: Addresses,
    expected: Pokes,
    wanted: Pokes,
    widths: NDArray[np.int64] | None = None,
) -> None:
    """Change each site from its expected five bytes to the wanted ones, all or none; only the
    first widths[i] of them, int64[n], where that is given.

    Raises SiteReadError, SiteMismatchError (nothing was written), SiteWriteError (all sites were
    put back).
    """
    widths = np.full(len(addresses), POKE_BYTES) if widths is None else widths
    ends = addresses + widths.astype(np.uint64)
    if (addresses // np.uint64(PAGE_BYTES) != (ends - np.uint64(1)) // np.uint64(PAGE_BYTES)).any():
        raise ValueError("a site crosses a page")
    runs = list(_runs(memory, addresses))
    mask = _first(widths)
    for members, start, text in runs:
        offsets = (addresses[members] - np.uint64(start)).astype(np.int64)
        found = text[offsets[:, None] + np.arange(POKE_BYTES)]
        wrong = ((found != expected[members]) & mask[members]).any(axis=1)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            which = members[first]
            raise SiteMismatchError(
                f"cannot patch site {int(addresses[which]):#x}: expected "
                f"{expected[which].tobytes().hex(' ')}, found {found[first].tobytes().hex(' ')}",
                address=int(addresses[which]),
                expected=expected[which].tobytes(),
                found=found[first].tobytes(),
                cause="another tool changed the text, or a module was replaced",
                remedy="fentry doctor lists who else is there",
            )
    done: list[tuple[int, NDArray[np.uint8]]] = []
    try:
        for members, start, text in runs:
            changed = text.copy()
            offsets = (addresses[members] - np.uint64(start)).astype(np.int64)
            places, written = offsets[:, None] + np.arange(POKE_BYTES), mask[members]
            changed[places[written]] = wanted[members][written]
            last = int(ends[members].max()) - start  # what was read behind it is left alone
            changed, text = changed[:last], text[:last]
            done.append((start, text))
            memory.write(start, changed.tobytes())
            if memory.read(start, len(changed)) != changed.tobytes():
                raise PatchError(f"the text at {start:#x} reads back differently", address=start)
    except PatchError as error:
        for start, text in done:
            with contextlib.suppress(PatchError):  # the page that could not be written is as it was
                memory.write(start, text.tobytes())
            if memory.read(start, len(text)) != text.tobytes():
                raise
        raise SiteWriteError(
            error.what,
            address=error.address,
            cause=error.cause,
            remedy=error.remedy or "the text may be a shared mapping",
        ) from error


def _first(widths: NDArray[np.int64]) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = np.arange(POKE_BYTES) < widths[:, None]
    return result


def _runs(
    memory: Memory, addresses: Addresses, *, partly: bool = False, beyond: int = 0
) -> Iterator[tuple[NDArray[np.int64], int, NDArray[np.uint8]]]:
    # (indices of the sites, page-aligned start, text up to the end of the last site): runs of
    # neighbouring pages, each read once.
    if not len(addresses):
        return
    pages = addresses // np.uint64(PAGE_BYTES)
    order = np.argsort(addresses, kind="stable")
    jumps = np.flatnonzero(np.diff(pages[order].astype(np.int64)) > 1) + 1
    for members in np.split(order, jumps):
        for part in _bounded(members, pages):
            start = int(pages[part[0]]) * PAGE_BYTES
            end = int(addresses[part[-1]]) + POKE_BYTES + beyond
            text = memory.read_some(start, end - start)
            if len(text) != end - start and not partly:
                raise SiteReadError(
                    f"cannot read the text at {start:#x}: not mapped any more",
                    address=start,
                    cause="the module was unloaded",
                )
            yield part, start, np.frombuffer(text, np.uint8)


def _bounded(members: NDArray[np.int64], pages: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    # Runs of at most _LONGEST_RUN pages, so that a failure has little to put back at a time.
    numbers = (pages[members] - pages[members[0]]) // np.uint64(_LONGEST_RUN)
    yield from np.split(members, np.flatnonzero(np.diff(numbers)) + 1)
