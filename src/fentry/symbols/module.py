"""The ELF files mapped in a target, each read from where the target sees it.

A file is opened through the target's root and believed only if device and inode are those of
the mapping; a deleted or replaced file is read from the target's memory instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fentry.errors import BadInput
from fentry.process.maps import Mapping
from fentry.process.proc import living
from fentry.symbols.elf import ElfImage

Read = Callable[[int, int], bytes]

_PAGE = 4096
_LARGEST_MEMORY_BYTES = 1 << 30
_VERSION = re.compile(r"(-[0-9.]+)?\.so[0-9.]*$")


@dataclass(frozen=True, slots=True)
class Module:
    """One file of the target.

    `bias` is target address less vaddr; `base`..`text_high` spans its mappings up to the end of
    its code, `text_low`..`text_high` its executable ones (target addresses).
    """

    path: str
    name: str
    short: str
    base: int
    bias: int
    text_low: int
    text_high: int
    image: ElfImage
    is_vdso: bool = False


def load_modules(pid: int, maps: Sequence[Mapping], read: Read) -> list[Module]:
    """The modules of process `pid`; `read(address, count)` gives what is mapped of its memory.

    A file that is no ELF file for x86-64, or damaged, is left out.
    """
    by_file: dict[tuple[str, int, str], list[Mapping]] = {}
    for mapping in maps:
        if mapping.inode and not mapping.path.startswith("/memfd:fentry-"):
            by_file.setdefault((mapping.device, mapping.inode, mapping.path), []).append(mapping)
    modules = []
    for parts in by_file.values():
        if any(m.executable for m in parts):
            modules += _modules_of(pid, parts, read)
    modules += [m for mapping in maps if mapping.path == "[vdso]" for m in _vdso(mapping, read)]
    return sorted(modules, key=lambda module: module.base)


def module_of_file(path: str, image: ElfImage) -> Module:
    """A module for a file that no process runs: addresses are vaddrs."""
    code = image.executable
    low = min((s.vaddr for s in code), default=0)
    high = max((s.vaddr + s.memory_size for s in code), default=0)
    name = os.path.basename(path)
    return Module(path, name, short_name(name), image.low, 0, low, high, image)


def short_name(name: str) -> str:
    """What patterns call a file: "libc" for libc.so.6 and libc-2.36.so, "bash" for bash."""
    return _VERSION.sub("", name) or name


def _modules_of(pid: int, parts: list[Mapping], read: Read) -> list[Module]:
    # One file may be mapped as a module more than once; each begins with its ELF header.
    starts = [m for m in parts if m.offset == 0 and read(m.start, 4) == b"\x7fELF"]
    modules = []
    for i, first in enumerate(starts):
        end = starts[i + 1].start if i + 1 < len(starts) else 1 << 64
        own = [m for m in parts if first.start <= m.start < end]
        if any(m.executable for m in own):
            module = _module(pid, own, read)
            if module is not None:
                modules.append(module)
    return modules


def _module(pid: int, parts: list[Mapping], read: Read) -> Module | None:
    first = parts[0]
    path = first.path_undeleted
    try:
        image = _from_file(pid, first) or _from_memory(parts, read)
        bias = first.start - image.low
        text = [m for m in parts if m.executable]
        _check_same(image, bias, read)
    except BadInput:
        return None
    name = os.path.basename(path)
    return Module(
        path, name, short_name(name), first.start, bias, text[0].start, text[-1].end, image
    )


def _from_file(pid: int, mapping: Mapping) -> ElfImage | None:
    folder = living(pid)
    names = [
        f"{folder}/map_files/{mapping.start:x}-{mapping.end:x}",
        f"{folder}/root{mapping.path}",
    ]
    for name in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if _is_same_file(os.fstat(fd), mapping):
                return ElfImage.from_file(fd, name=os.path.basename(mapping.path_undeleted))
        finally:
            os.close(fd)
    return None


def _is_same_file(found: os.stat_result, mapping: Mapping) -> bool:
    # An overlay file system shows another device in maps than in stat (overlayfs.rst): the inode
    # and the comparison of program headers with memory decide.
    return found.st_ino == mapping.inode


def _check_same(image: ElfImage, bias: int, read: Read) -> None:
    # Raises BadInput if the target's memory holds another file's headers.
    if image.memory_bias is None:
        header = bytes(image.data[:64])
        if read(image.low + bias, 64) != header:
            raise BadInput(f"{image.name} is not the file that the target runs")


def _from_memory(parts: list[Mapping], read: Read) -> ElfImage:
    low, high = parts[0].start, parts[-1].end
    if high - low > _LARGEST_MEMORY_BYTES:
        raise BadInput(f"{parts[0].path} is too large to be read from memory")
    memory = bytearray(high - low)
    for mapping in parts:
        piece = read(mapping.start, mapping.size)
        memory[mapping.start - low : mapping.start - low + len(piece)] = piece
    name = os.path.basename(parts[0].path_undeleted)
    probe = ElfImage(bytes(memory), name=name, memory_bias=0)
    return ElfImage(bytes(memory), name=name, memory_bias=low - probe.low)


def _vdso(mapping: Mapping, read: Read) -> list[Module]:
    try:
        image = ElfImage(read(mapping.start, mapping.size), name="[vdso]")
        bias = mapping.start - image.low
    except BadInput:
        return []
    return [
        Module(
            "[vdso]",
            "[vdso]",
            "[vdso]",
            mapping.start,
            bias,
            mapping.start,
            mapping.end,
            image,
            is_vdso=True,
        )
    ]
