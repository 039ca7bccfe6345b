"""The only writer of the target's text (text_poke): verify, write, read back, or roll back whole.

All threads are stopped.  The bytes that are replaced never cross a page; writes begin at a page and
end inside one, because the kernel copies /proc/PID/mem writes in pieces counted from the start of
the buffer and cut at page ends: a writer killed meanwhile leaves whole pieces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.errors import PatchError
from fentry.process.memory import PAGE_BYTES, Memory

POKE_BYTES = 5

Addresses = NDArray[np.uint64]
Pokes = NDArray[np.uint8]

_LONGEST_RUN = 256
_WORD, _WIDEST = 8, 16


class SiteReadError(PatchError):
    """The bytes of a site cannot be read."""


class SiteMismatchError(PatchError):
    """A site does not hold what it should: somebody else changed it."""


class SiteWriteError(PatchError):
    """The bytes of a site cannot be written; all sites are as they were."""


class SiteRestoreError(PatchError):
    """The bytes of a site could be neither written nor put back: some sites are changed."""


def read_mapped(memory: Memory, addresses: Addresses) -> tuple[Pokes, NDArray[np.bool_]]:
    """The five bytes at each address where they are mapped, and which are: uint8[n, 5], bool[n]."""
    found = np.zeros((len(addresses), POKE_BYTES), np.uint8)
    mapped = np.zeros(len(addresses), np.bool_)
    for run in _whole_runs(addresses, np.full(len(addresses), POKE_BYTES)):
        text = np.frombuffer(memory.read_some(run.start, run.size), np.uint8)
        there = run.offsets + POKE_BYTES <= len(text)
        found[run.members[there]] = text[run.offsets[there, None] + np.arange(POKE_BYTES)]
        mapped[run.members[there]] = True
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


@dataclass(frozen=True, slots=True)
class _Run:
    # Code that is read at once: which places, the start of their first page, bytes up to the end
    # of the last place, and how far behind the start each place lies.
    members: NDArray[np.int64]
    start: int
    size: int
    offsets: NDArray[np.int64]


class Expected:
    """What some places should hold: prepared outside of a stop, compared inside.

    The first sizes[i] bytes, int64[n], of content[i] at each address: `content` is uint8[n, w],
    w at most 16.
    """

    def __init__(self, addresses: Addresses, content: Pokes, sizes: NDArray[np.int64]) -> None:
        self.addresses = addresses
        self.content = content
        self.sizes = sizes
        self.runs = list(_whole_runs(addresses, sizes))
        wide = np.zeros((len(addresses), _WIDEST), np.uint8)
        wide[:, : content.shape[1]] = content
        mask = np.where(np.arange(_WIDEST) < sizes[:, None], 0xFF, 0).astype(np.uint8)
        self._words = (wide & mask).view("<u8")
        self._masks = mask.view("<u8")
        self._is_wide = bool((sizes > _WORD).any())

    def look(self, memory: Memory) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which places hold it, and which are mapped: bool[n], bool[n]."""
        same, mapped = np.zeros((2, len(self.addresses)), np.bool_)
        for run in self.runs:
            text = memory.read_some(run.start, run.size)
            words = _words_at_every_byte(text)
            offsets = np.minimum(run.offsets, len(text))
            alike = self._agree(words[offsets], run.members, 0)
            if self._is_wide:
                alike &= self._agree(words[offsets + _WORD], run.members, 1)
            there = run.offsets + self.sizes[run.members] <= len(text)
            same[run.members], mapped[run.members] = alike & there, there
        return same, mapped

    def _agree(
        self, found: NDArray[np.uint64], members: NDArray[np.int64], half: int
    ) -> NDArray[np.bool_]:
        unlike = (found ^ self._words[members, half]) & self._masks[members, half]
        return np.asarray(unlike == 0, np.bool_)


def windows_differ(
    memory: Memory, addresses: Addresses, original: Pokes, sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which sites do not hold the first sizes[i] bytes of original[i], or are not mapped: bool[n].

    `original` is uint8[n, 16] or shorter.
    """
    same, _ = Expected(addresses, original, sizes).look(memory)
    return ~same


class Changes:
    """Sites to be brought from their expected bytes to the wanted ones: prepared outside of a stop,
    written inside.

    Only the first widths[i] of five bytes, int64[n]. Raises ValueError where they cross a page.
    """

    def __init__(
        self, addresses: Addresses, expected: Pokes, wanted: Pokes, widths: NDArray[np.int64]
    ) -> None:
        last = addresses + widths.astype(np.uint64) - np.uint64(1)
        if (addresses // np.uint64(PAGE_BYTES) != last // np.uint64(PAGE_BYTES)).any():
            raise ValueError("a site crosses a page")
        self._expected = Expected(addresses, expected, widths)
        mask = _first(widths)
        self._new: list[tuple[NDArray[np.int64], NDArray[np.uint8]]] = []
        for run in self._expected.runs:
            chosen = mask[run.members]
            places = (run.offsets[:, None] + np.arange(POKE_BYTES))[chosen]
            self._new.append((places, wanted[run.members][chosen]))

    def write(self, memory: Memory, *, verified: bool = False) -> None:
        """Change all of them, or none; `verified` says that what is expected is known to be there.

        Raises SiteReadError, SiteMismatchError (nothing was written), SiteWriteError (all sites
        were put back), SiteRestoreError (some could not be).
        """
        if not verified:
            self._verify(memory)
        done: list[tuple[int, bytes]] = []
        try:
            for run, (places, new) in zip(self._expected.runs, self._new, strict=True):
                text = memory.read(run.start, run.size)
                changed = np.frombuffer(text, np.uint8).copy()
                changed[places] = new
                done.append((run.start, text))
                written = changed.tobytes()
                memory.write(run.start, written)
                if memory.read(run.start, run.size) != written:
                    raise PatchError(
                        f"the text at {run.start:#x} reads back differently", address=run.start
                    )
        except BaseException as error:
            self._put_back(memory, done)
            if not isinstance(error, PatchError):
                raise
            raise SiteWriteError(
                error.what,
                address=error.address,
                cause=error.cause,
                remedy=error.remedy or "the text may be a shared mapping",
            ) from error

    def _put_back(self, memory: Memory, done: list[tuple[int, bytes]]) -> None:
        for start, text in done:
            with contextlib.suppress(PatchError):  # what could not be written is as it was
                memory.write(start, text)
            try:
                same = memory.read(start, len(text)) == text
            except BaseException as error:
                raise _unrestored(start) from error
            if not same:
                raise _unrestored(start)

    def _verify(self, memory: Memory) -> None:
        same, mapped = self._expected.look(memory)
        if not mapped.all():
            address = int(self._expected.addresses[~mapped][0])
            raise SiteReadError(
                f"cannot read the text at {address:#x}: not mapped any more",
                address=address,
                cause="the module was unloaded",
            )
        if not same.all():
            which = int(np.flatnonzero(~same)[0])
            address = int(self._expected.addresses[which])
            size = int(self._expected.sizes[which])
            expected = self._expected.content[which, :size].tobytes()
            found = memory.read(address, size)
            raise SiteMismatchError(
                f"cannot patch site {address:#x}: expected {expected.hex(' ')}, "
                f"found {found.hex(' ')}",
                address=address,
                expected=expected,
                found=found,
                cause="another tool changed the text, or a module was replaced",
                remedy="fentry doctor lists who else is there",
            )


def _unrestored(start: int) -> SiteRestoreError:
    return SiteRestoreError(
        f"the text at {start:#x} could not be put back",
        address=start,
        cause="it can be written no more: the kernel, or another tool, forbids it by now",
        remedy="fentry detach, and if it fails restart the target",
    )


def poke(
    memory: Memory,
    addresses: Addresses,
    expected: Pokes,
    wanted: Pokes,
    widths: NDArray[np.int64] | None = None,
) -> None:
    """Changes(...).write() of five bytes a site, or of widths[i] where that is given."""
    widths = np.full(len(addresses), POKE_BYTES) if widths is None else widths
    Changes(addresses, expected, wanted, widths).write(memory)


def _first(widths: NDArray[np.int64]) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = np.arange(POKE_BYTES) < widths[:, None]
    return result


def _words_at_every_byte(text: bytes) -> NDArray[np.uint64]:
    # The eight bytes at each offset of a text, zeros behind its end; up to _WORD behind that.
    padded = np.frombuffer(text + bytes(_WIDEST), np.uint8)
    return np.ndarray(len(padded) - _WORD + 1, "<u8", padded, strides=(1,))


def _whole_runs(addresses: Addresses, sizes: NDArray[np.int64]) -> Iterator[_Run]:
    # Runs of neighbouring pages; what is behind the last place is left alone.
    if not len(addresses):
        return
    pages = addresses // np.uint64(PAGE_BYTES)
    order = np.argsort(addresses, kind="stable")
    jumps = np.flatnonzero(np.diff(pages[order].astype(np.int64)) > 1) + 1
    for members in np.split(order, jumps):
        for part in _bounded(members, pages):
            start = int(pages[part[0]]) * PAGE_BYTES
            offsets = (addresses[part] - np.uint64(start)).astype(np.int64)
            yield _Run(part, start, int((offsets + sizes[part]).max()), offsets)


def _bounded(members: NDArray[np.int64], pages: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    # Runs of at most _LONGEST_RUN pages, so that a failure has little to put back at a time.
    numbers = (pages[members] - pages[members[0]]) // np.uint64(_LONGEST_RUN)
    yield from np.split(members, np.flatnonzero(np.diff(numbers)) + 1)
