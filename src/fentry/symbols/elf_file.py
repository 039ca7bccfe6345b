"""One x86-64 ELF image: headers, segments, sections, symbol arrays, build id.

Not here: which of its symbols are functions (functions.py), frame descriptions (frames.py),
relocations (relocations.py), where it is mapped (module.py). Layouts are those of the System V
gABI, chapters 4 and 5, and of <elf.h>; every address is a vaddr, as the file states it.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput

ET_EXEC, ET_DYN = 2, 3
EM_X86_64 = 62
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_GNU_EH_FRAME = 1, 2, 4, 0x6474E550
PF_X, PF_W = 1, 2
SHT_SYMTAB, SHT_NOBITS, SHT_DYNSYM = 2, 8, 11
SHF_ALLOC, SHF_EXECINSTR = 2, 4
DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ = 4, 5, 6, 10
DT_GNU_HASH = 0x6FFFFEF5
NT_GNU_BUILD_ID = 3

# Elf64_Sym: name is an offset into the string table, info is (bind << 4) | type.
SYMBOL_DTYPE = np.dtype(
    [
        ("name", "<u4"),
        ("info", "u1"),
        ("other", "u1"),
        ("shndx", "<u2"),
        ("value", "<u8"),
        ("size", "<u8"),
    ]
)
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_MAX_SYMBOLS = 1 << 26
# What a jump of five bytes spans is 2 GiB: of images up to the first size all is within reach of a
# place beside them, of larger ones their code and what lies around it.
_NEAR_BYTES = 3 << 29
_AROUND_CODE_BYTES, _BEFORE_CODE_BYTES = 1 << 30, 1 << 28


@dataclass(frozen=True, slots=True)
class Segment:
    """One program header; `offset` and the sizes in bytes, `flags` are PF_ bits."""

    type: int
    flags: int
    offset: int
    vaddr: int
    file_size: int
    memory_size: int


@dataclass(frozen=True, slots=True)
class Section:
    """One section header; `offset` and `size` in bytes of the file."""

    name: str
    type: int
    flags: int
    vaddr: int
    offset: int
    size: int
    link: int


@dataclass(frozen=True, slots=True)
class SymbolArray:
    """A symbol table as it lies in the file: SYMBOL_DTYPE[n] and its string table."""

    symbols: NDArray[np.void]
    strings: bytes


class ElfFile:
    """An ELF file for 64-bit x86-64, or what a target's memory holds of one.

    `data` is the file, or with `memory_bias` given the memory from the lowest PT_LOAD on: then
    sections are ignored, and pointers that the dynamic linker has relocated are taken back by
    that bias. Everything but the headers is read when first asked for.

    Raises BadInput, naming the offset, for anything that is not such a file or is damaged; also
    from the properties.
    """

    def __init__(
        self,
        data: bytes | memoryview | mmap.mmap,
        *,
        name: str = "",
        memory_bias: int | None = None,
    ) -> None:
        self.name = name or "file"
        self.data = memoryview(data).toreadonly()
        self.size = len(self.data)
        self.memory_bias = memory_bias
        # symbol tables that belong to it and lie elsewhere (debug.py); set before others are asked
        self.debug_symbols: list[SymbolArray] = []
        self._parse_header()

    @classmethod
    def open(cls, path: str | Path, *, name: str = "") -> Self:
        """The image of a file, mapped privately; `name` defaults to the file's own.

        Raises BadInput as above, OSError if it cannot be opened.
        """
        with open(path, "rb") as file:
            return cls.from_file(file.fileno(), name=name or Path(path).name)

    @classmethod
    def from_file(cls, descriptor: int, *, name: str) -> Self:
        """The image of an open file; the descriptor is no longer needed afterwards."""
        try:
            data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise BadInput(f"{name} is not an ELF file", cause="it is empty") from error
        return cls(data, name=name)

    # -- bytes ---------------------------------------------------------------------------------

    def at(self, offset: int, size: int, what: str) -> memoryview:
        """`size` bytes of the data; raises BadInput naming `what` if they are not all there."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self.damaged(what, offset, f"{size} bytes, past the end of {self.size}")
        return self.data[offset : offset + size]

    def damaged(self, what: str, offset: int, cause: str) -> BadInput:
        """The error for a part that cannot be understood."""
        return BadInput(f"{self.name}: damaged {what} at offset 0x{offset:x}", cause=cause)

    def read(self, vaddr: int, size: int) -> bytes:
        """Up to `size` bytes from an address; short where the file has no more for it."""
        for segment in self.loads:
            inside = vaddr - segment.vaddr
            if 0 <= inside < segment.file_size:
                return bytes(
                    self.at(
                        segment.offset + inside, min(size, segment.file_size - inside), "segment"
                    )
                )
        return b""

    def tail(self, vaddr: int) -> NDArray[np.uint8]:
        """All bytes from an address to the end of its segment in the file; empty if none."""
        for segment in self.loads:
            inside = vaddr - segment.vaddr
            if 0 <= inside < segment.file_size:
                view = self.at(segment.offset + inside, segment.file_size - inside, "segment")
                return np.frombuffer(view, np.uint8)
        return np.zeros(0, np.uint8)

    # -- parts ---------------------------------------------------------------------------------

    @cached_property
    def loads(self) -> list[Segment]:
        """The PT_LOAD segments, lowest address first; `offset` says where `data` has them."""
        loads = sorted((s for s in self.segments if s.type == PT_LOAD), key=lambda s: s.vaddr)
        if not loads:
            raise self.damaged("program headers", 0, "there is no segment to load")
        if self.memory_bias is None:
            return [s for s in loads if self.at(s.offset, s.file_size, "segment") is not None]
        low = loads[0].vaddr & ~0xFFF
        kept = []
        for s in loads:
            there = max(0, min(s.file_size, self.size - (s.vaddr - low)))
            kept.append(Segment(s.type, s.flags, s.vaddr - low, s.vaddr, there, s.memory_size))
        return kept

    @cached_property
    def executable(self) -> list[Segment]:
        """The PT_LOAD segments that hold code."""
        return [segment for segment in self.loads if segment.flags & PF_X]

    @cached_property
    def near(self) -> tuple[int, int]:
        """The vaddrs that memory beside the image is to be within reach of: all of it, or of an
        image of gigabytes its code and a part of its data. Further than 2 GiB if its code is."""
        low, high = self.low, max(s.vaddr + s.memory_size for s in self.loads)
        code = self.executable
        if high - low <= _NEAR_BYTES or not code:
            return low, high
        low = max(low, code[0].vaddr - _BEFORE_CODE_BYTES)
        end = max(low + _AROUND_CODE_BYTES, code[-1].vaddr + code[-1].memory_size)
        return low, min(high, end)

    @cached_property
    def low(self) -> int:
        """The lowest page address of the image: what `base` of a mapped module stands for."""
        return self.loads[0].vaddr & ~0xFFF

    @cached_property
    def sections(self) -> list[Section]:
        """The section headers; empty if the file has none, or for memory."""
        if not self._shoff or not self._shnum or self.memory_bias is not None:
            return []
        if self._shentsize != _SHDR.size:
            raise self.damaged(
                "section headers", self._shoff, f"entries of {self._shentsize} bytes"
            )
        table = self.at(self._shoff, self._shnum * _SHDR.size, "section headers")
        rows = [_SHDR.unpack_from(table, i * _SHDR.size) for i in range(self._shnum)]
        if any(row[3] + row[5] >= 1 << 63 for row in rows):
            raise self.damaged("section headers", self._shoff, "a section past the address space")
        if self._shstrndx >= len(rows):
            raise self.damaged("section headers", self._shoff, "no section of names")
        names = bytes(self.at(rows[self._shstrndx][4], rows[self._shstrndx][5], "section names"))
        return [Section(_string(names, r[0]), r[1], r[2], r[3], r[4], r[5], r[6]) for r in rows]

    @cached_property
    def dynamic(self) -> dict[int, int]:
        """The first value of each tag of PT_DYNAMIC; addresses of it go through dynamic_vaddr()."""
        found: dict[int, int] = {}
        for segment in self.segments:
            if segment.type == PT_DYNAMIC:
                raw = self.read(segment.vaddr, segment.file_size)
                for tag, value in struct.iter_unpack("<QQ", raw[: len(raw) & ~15]):
                    if tag == 0:
                        break
                    found.setdefault(tag, value)
        return found

    def dynamic_vaddr(self, tag: int) -> int:
        """The address under a tag of PT_DYNAMIC as a vaddr, 0 if there is none.

        glibc relocates these pointers in place (elf/get-dynamic-info.h), musl does not.
        """
        value = self.dynamic.get(tag, 0)
        top = max(s.vaddr + s.memory_size for s in self.loads)
        if self.memory_bias and value and not self.low <= value < top:
            value -= self.memory_bias
        return value if self.low <= value < top else 0

    @cached_property
    def build_id(self) -> str:
        """The GNU build id in hex, "" if there is none (binutils, NT_GNU_BUILD_ID)."""
        for segment in self.segments:
            if segment.type == PT_NOTE:
                notes = self.read(segment.vaddr, segment.file_size)
                position = 0
                while position + 12 <= len(notes):
                    name_size, size, kind = struct.unpack_from("<III", notes, position)
                    body = position + 12 + (name_size + 3 & ~3)
                    if kind == NT_GNU_BUILD_ID and notes[position + 12 : body] == b"GNU\0":
                        return notes[body : body + size].hex()
                    position = body + (size + 3 & ~3)
        return ""

    @cached_property
    def symbol_arrays(self) -> list[SymbolArray]:
        """.symtab, what debug files have, .dynsym: in this order, as far as they exist."""
        found = self.static_symbols + self.debug_symbols
        dynamic = [s for s in self.sections if s.type == SHT_DYNSYM]
        found += [self._section_symbols(section) for section in dynamic]
        return found if dynamic else found + self._dynamic_symbols()

    @cached_property
    def static_symbols(self) -> list[SymbolArray]:
        """.symtab, if there is one."""
        return [self._section_symbols(s) for s in self.sections if s.type == SHT_SYMTAB]

    # -- parsing -------------------------------------------------------------------------------

    def _parse_header(self) -> None:
        ident = bytes(self.data[:20])
        if ident[:4] != b"\x7fELF":
            raise BadInput(f"{self.name} is not an ELF file", cause=f"starts with {ident[:4]!r}")
        if len(ident) < 20 or ident[4] != 2 or ident[5] != 1:
            word = "32-bit" if ident[4:5] == b"\x01" else "not little-endian 64-bit"
            raise BadInput(f"{self.name} is {word}", cause="only 64-bit x86-64 is supported")
        header = _EHDR.unpack(self.at(0, _EHDR.size, "ELF header"))
        (_, self.type, machine, _, self.entry, phoff, self._shoff, _, _, phentsize, phnum) = header[
            :11
        ]
        self._shentsize, self._shnum, self._shstrndx = header[11:]
        if machine != EM_X86_64:
            raise BadInput(
                f"{self.name} is for machine {machine}", cause="only x86-64 is supported"
            )
        if self.type not in (ET_EXEC, ET_DYN):
            raise BadInput(
                f"{self.name} is neither a program nor a shared object",
                cause=f"e_type is {self.type}",
            )
        if phentsize != _PHDR.size:
            raise self.damaged("program headers", phoff, f"entries of {phentsize} bytes")
        table = self.at(phoff, phnum * _PHDR.size, "program headers")
        self.segments: list[Segment] = []
        for kind, flags, offset, vaddr, _, file_size, memory_size, _ in _PHDR.iter_unpack(table):
            if vaddr + max(file_size, memory_size) >= 1 << 47:
                raise self.damaged("program headers", phoff, f"segment at 0x{vaddr:x}")
            self.segments.append(Segment(kind, flags, offset, vaddr, file_size, memory_size))

    def _section_symbols(self, section: Section) -> SymbolArray:
        if section.link >= len(self.sections):
            raise self.damaged(f"section {section.name}", section.offset, "no string table")
        strings = self.sections[section.link]
        count = section.size // SYMBOL_DTYPE.itemsize
        raw = self.at(section.offset, count * SYMBOL_DTYPE.itemsize, f"section {section.name}")
        names = self.at(strings.offset, strings.size, f"section {strings.name}")
        return SymbolArray(np.frombuffer(raw, SYMBOL_DTYPE), bytes(names))

    def _dynamic_symbols(self) -> list[SymbolArray]:
        table, strings = self.dynamic_vaddr(DT_SYMTAB), self.dynamic_vaddr(DT_STRTAB)
        count = self._dynamic_symbol_count()
        if not table or not strings or not count:
            return []
        raw = self.tail(table)[: count * SYMBOL_DTYPE.itemsize]
        whole = len(raw) // SYMBOL_DTYPE.itemsize * SYMBOL_DTYPE.itemsize
        names = self.read(strings, self.dynamic.get(DT_STRSZ, 0))
        return [SymbolArray(raw[:whole].view(SYMBOL_DTYPE), names)]

    def _dynamic_symbol_count(self) -> int:
        """How many entries DT_SYMTAB has: only the hash tables tell (gABI; GNU hash: binutils)."""
        table = self.dynamic_vaddr(DT_HASH)
        if table:
            raw = self.read(table, 8)
            return min(struct.unpack("<II", raw)[1], _MAX_SYMBOLS) if len(raw) == 8 else 0
        table = self.dynamic_vaddr(DT_GNU_HASH)
        raw = self.read(table, 16) if table else b""
        if len(raw) < 16:
            return 0
        nr_buckets, first, bloom_words, _ = struct.unpack("<IIII", raw)
        words = self.tail(table + 16 + 8 * bloom_words)
        words = words[: len(words) & ~3].view("<u4")
        if not nr_buckets or len(words) <= nr_buckets:
            return 0
        last = int(words[:nr_buckets].max())
        if last < first:
            return 0
        chain = words[nr_buckets + last - first :]
        ends: NDArray[Any] = np.flatnonzero(chain & 1)
        return min(last + int(ends[0]) + 1, _MAX_SYMBOLS) if len(ends) else 0


def _string(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset)
    return table[offset : end if end >= 0 else len(table)].decode("utf-8", "surrogateescape")
