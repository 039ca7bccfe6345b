"""The ELF files mapped in a target, each read from where the target sees it.

A file is opened through the target's root and believed only if device and inode are those of
the mapping; a deleted or replaced file is read from the target's memory instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from fentry.errors import BadInput
from fentry.process.maps import Mapping
from fentry.process.proc import living
from fentry.symbols.debug import find_symbols
from fentry.symbols.elf import ElfImage
from fentry.symbols.elf_file import PF_X, PT_LOAD, PT_NOTE, Segment
from fentry.symbols.kept_tables import fill

Read = Callable[[int, int], bytes]

_PAGE = 4096
_LARGEST_MEMORY_BYTES = 1 << 30
_VERSION = re.compile(r"(-[0-9]+\.[0-9.]+)?\.so[0-9.]*$")


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

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells it from others, and from itself when it is loaded again elsewhere."""
        return self.path, self.base, self.image.build_id

    def overlaps(self, other: Module) -> bool:
        """Whether both have addresses in common."""
        (low, high), (other_low, other_high) = self.span, other.span
        return low < other_high and other_low < high

    @property
    def near(self) -> tuple[int, int]:
        """What memory for its trampolines has to be within reach of (target addresses)."""
        low, high = self.image.near
        return low + self.bias, high + self.bias

    @property
    def span(self) -> tuple[int, int]:
        """From the first to behind the last byte of code and data (target addresses)."""
        loads = [s for s in self.image.segments if s.type == PT_LOAD]
        low = min((s.vaddr for s in loads), default=self.text_low - self.bias)
        high = max((s.vaddr + s.memory_size for s in loads), default=self.text_high - self.bias)
        return low + self.bias, high + self.bias


def load_modules(pid: int, maps: Sequence[Mapping], read: Read) -> list[Module]:
    """The modules of process `pid`; `read(address, count)` gives what is mapped of its memory.

    A file that is no ELF file for x86-64, or damaged, is left out.
    """
    by_file: dict[tuple[str, int, str], list[Mapping]] = {}
    for mapping in maps:
        if mapping.inode and not mapping.path.startswith("/memfd:fentry-"):
            by_file.setdefault((mapping.device, mapping.inode, mapping.path), []).append(mapping)
    modules = []
    made = [m for m in maps if m.executable and not m.inode and not m.path]
    for parts in by_file.values():
        if any(m.executable for m in parts) or (made and read(parts[0].start, 4) == b"\x7fELF"):
            modules += _modules_of(pid, parts, made, read)
    modules += [m for mapping in maps if mapping.path == "[vdso]" for m in _vdso(mapping, read)]
    return sorted(modules, key=lambda module: module.base)


def code_of(maps: Sequence[Mapping]) -> list[tuple[int, int, int, str]]:
    """Which files are mapped as code, and where: (start, end, inode, path)."""
    return [(m.start, m.end, m.inode, m.path) for m in maps if m.executable and m.inode]


def open_image(path: str) -> ElfImage:
    """The image of a file with its debug file's symbols. Raises as ElfImage.open."""
    image = ElfImage.open(path)
    if not image.static_symbols:
        image.debug_symbols = find_symbols(image, os.path.realpath(path))
    fill(image)
    return image


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


def _modules_of(pid: int, parts: list[Mapping], made: list[Mapping], read: Read) -> list[Module]:
    # One file may be mapped as a module more than once, and also as mere data: each mapping is
    # tried as the first of a module, and is one if all code then lies where the headers say.
    image = _from_file(pid, parts[0])
    modules: list[Module] = []
    for first in parts:
        if any(low <= first.start < high for low, high in (m.span for m in modules)):
            continue  # JIT code may lie where the code of this one would be
        try:
            modules += _module(first, parts, made, image, read)
        except BadInput:
            continue
    return modules


def _module(
    first: Mapping,
    parts: list[Mapping],
    made: list[Mapping],
    image: ElfImage | None,
    read: Read,
) -> list[Module]:
    name = os.path.basename(first.path_undeleted)
    if image is None:
        if first.offset or read(first.start, 4) != b"\x7fELF":
            return []
        image = ElfImage(read(first.start, first.size), name=name, memory_bias=0)
    loads = sorted((s for s in image.segments if s.type == PT_LOAD), key=lambda s: s.vaddr)
    if not loads or first.offset != loads[0].offset // _PAGE * _PAGE:
        return []
    bias = first.start - image.low
    top = bias + max(s.vaddr + s.memory_size for s in loads)
    own = [m for m in parts if first.start <= m.start < top]
    code = [s for s in loads if s.flags & PF_X]
    # A program may have moved its code to memory of its own (huge pages).
    text = [m for m in own if m.executable]
    if not code or not all(_is_mapped(s, bias, text) or _is_made(s, bias, made) for s in code):
        return []
    if image.memory_bias is not None or not _is_in_memory(image, bias, read):
        image = _from_memory(own, read)
    return [
        Module(
            first.path_undeleted,
            name,
            short_name(name),
            first.start,
            bias,
            (bias + code[0].vaddr) // _PAGE * _PAGE,
            -(-(bias + code[-1].vaddr + code[-1].memory_size) // _PAGE) * _PAGE,
            image,
        )
    ]


def _is_made(segment: Segment, bias: int, made: list[Mapping]) -> bool:
    return any(m.start <= bias + segment.vaddr < m.end for m in made)


def _is_mapped(segment: Segment, bias: int, text: list[Mapping]) -> bool:
    start = bias + segment.vaddr
    return any(
        m.start <= start < m.end and m.offset + start - m.start == segment.offset for m in text
    )


def _from_file(pid: int, mapping: Mapping) -> ElfImage | None:
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
        try:
            if _is_same_file(os.fstat(fd), mapping):
                path = mapping.path_undeleted
                return _image(_Opened.at(fd), os.path.basename(path), path, f"{folder}/root")
        except BadInput:
            return None  # damaged where the target need not look: memory has what runs
        finally:
            os.close(fd)
    return None


@dataclass(frozen=True, slots=True)
class _Opened:
    # A file as it is now, and a descriptor to read it by.
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    fd: int = field(compare=False)

    @classmethod
    def at(cls, fd: int) -> _Opened:
        found = os.fstat(fd)
        return cls(
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
            fd,
        )


@lru_cache(maxsize=64)
def _image(file: _Opened, name: str, path: str, root: str) -> ElfImage:
    # Whoever attaches again has read its files.
    image = ElfImage.from_file(file.fd, name=name)
    if not image.static_symbols:
        image.debug_symbols = find_symbols(image, path, root)
    fill(image)
    return image


def _is_same_file(found: os.stat_result, mapping: Mapping) -> bool:
    # An overlay file system shows another device in maps than in stat (overlayfs.rst): the inode
    # and the comparison of headers and build id with memory decide.
    return found.st_ino == mapping.inode


def _is_in_memory(image: ElfImage, bias: int, read: Read) -> bool:
    # The ELF header, the program headers and the notes (the build id) that are loaded.
    parts = [(image.low, 64 + 56 * len(image.segments))]
    parts += [(s.vaddr, s.file_size) for s in image.segments if s.type == PT_NOTE]
    for vaddr, size in parts:
        expected = image.read(vaddr, min(size, _PAGE))
        if read(vaddr + bias, len(expected)) != expected:
            return False
    return True


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
            "vdso",
            mapping.start,
            bias,
            mapping.start,
            mapping.end,
            image,
            is_vdso=True,
        )
    ]
