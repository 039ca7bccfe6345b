"""A snapshot from the core file of a dead process.

The core holds the registry and the rings: shared memory without a file name counts as anonymous for
coredump_filter (core(5)), whose default has it.  Names come from the files that the process ran, if
they are the same still.
"""

from __future__ import annotations

import os
import stat
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput, FentryError
from fentry.events.clock import ClockPair
from fentry.formats.tracefile_payloads import Task
from fentry.process.core_file import CoreFile, MappedFile
from fentry.process.memory import Memory
from fentry.region.layout import MAGIC
from fentry.region.registry import Registry
from fentry.ring.buffer import RingBuffer, RingMemory
from fentry.symbols.elf import ElfImage
from fentry.symbols.elf_file import PT_NOTE
from fentry.symbols.module import Module, module_of_file, open_image

_PAGE = 4096
_USER_END = 1 << 47


class CoreSource:
    """An open core file as the source of a snapshot. Raises BadInput when there is nothing of
    fentry in it, RegionError when what is there is damaged."""

    def __init__(self, core: CoreFile) -> None:
        self._core = core
        self.name = core.path
        self.pid = core.pid
        self.exe = core.files[0].path if core.files else ""
        self.command = tuple(core.arguments.decode(errors="replace").split())
        self.registry = _registry(core)

    def ring(self, address: int, count: int) -> RingMemory | None:
        """As Source.ring: private pages of the file."""
        offset = self._core.offset_of(address, count)
        return None if offset is None else _Pages(self.name, offset, count)

    def heads(self, ring: RingBuffer, address: int) -> NDArray[np.uint64]:
        """As Source.heads: nobody writes any more."""
        return np.asarray(ring.lines["head"], np.uint64)

    def modules(self) -> tuple[list[Module], list[str]]:
        """As Source.modules, from the files that are there now."""
        return _modules(self._core)

    def tasks(self) -> list[Task]:
        """As Source.tasks: a core tells the name of the process alone."""
        return [Task(self.pid, self._core.comm, 0)] if self._core.comm else []

    def now(self) -> ClockPair | None:
        """As Source.now: none."""
        return None


class _Pages:
    # The reader may write into them: nobody sees it.

    def __init__(self, path: str, offset: int, count: int) -> None:
        page = offset // _PAGE * _PAGE
        memory = np.memmap(path, np.uint8, "c", page, (offset - page + count,))
        self.bytes: NDArray[np.uint8] = memory[offset - page :].view(np.ndarray)

    def __len__(self) -> int:
        return len(self.bytes)


def _registry(core: CoreFile) -> Registry:
    for piece in core.pieces:
        if core.read_some(piece.start, 8) == MAGIC.to_bytes(8, "little"):
            # It is only read here.
            registry = Registry(cast(Memory, core), piece.start, piece.size)
            if registry.is_inherited():
                raise BadInput(
                    f"{core.path} is of a forked child",
                    cause="what its parent recorded is not its own, and it recorded nothing",
                    remedy="the core of the process that was armed",
                )
            return registry
    raise BadInput(
        f"{core.path} has nothing of fentry in it",
        cause="the process was not armed or recorded, or coredump_filter left shared memory out",
        remedy="fentry arm -p PID beforehand; core(5) has coredump_filter",
    )


def _modules(core: CoreFile) -> tuple[list[Module], list[str]]:
    modules: list[Module] = []
    unnamed: list[str] = []
    for first in core.files:
        if not first.start < first.end <= _USER_END:
            continue
        if first.offset or core.read_some(first.start, 4) not in (b"\x7fELF", b""):
            continue
        if first.path.startswith("/memfd:fentry-") or any(m.base == first.start for m in modules):
            continue
        try:
            image = _image_of(first)
        except (FentryError, OSError) as error:
            if core.read_some(first.start, 4) == b"\x7fELF":
                unnamed.append(f"{first.path}: {_cause(error)}")
            continue
        bias = first.start - image.low
        if _is_the_same(core, image, bias):
            modules.append(_moved(image, first, bias))
        else:
            unnamed.append(f"{first.path}: another file lies there now, or the core does not tell")
    return sorted(modules, key=lambda module: module.base), unnamed


def _cause(error: FentryError | OSError) -> str:
    return error.what if isinstance(error, FentryError) else os.strerror(error.errno or 0).lower()


def _image_of(first: MappedFile) -> ElfImage:
    # The file as it is now.
    if not stat.S_ISREG(os.stat(first.path).st_mode):
        raise BadInput("it is no file")
    return open_image(first.path)


def _moved(image: ElfImage, first: MappedFile, bias: int) -> Module:
    # As a module where the process had it.
    here = module_of_file(first.path, image)
    return Module(
        here.path, here.name, here.short, first.start, bias,
        here.text_low + bias, here.text_high + bias, image,
    )  # fmt: skip


def _is_the_same(core: CoreFile, image: ElfImage, bias: int) -> bool:
    # Headers and notes (the build id), as far as the core has them: most hold the first page. One
    # that has none of it tells nothing.
    seen = False
    parts = [(image.low, 64 + 56 * len(image.segments))]
    parts += [(s.vaddr, s.file_size) for s in image.segments if s.type == PT_NOTE]
    for vaddr, size in parts:
        found = core.read_some(vaddr + bias, size)
        if image.read(vaddr, len(found)) != found:
            return False
        seen |= bool(found)
    return seen
