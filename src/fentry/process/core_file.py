"""A core file: the memory that a process had when it died, its threads and files.

Layouts are those of elf(5) and of the kernel's fs/binfmt_elf.c (fill_files_note, fill_psinfo) and
include/linux/elfcore.h; gdb's gcore writes the same.
"""

from __future__ import annotations

import mmap
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fentry.errors import BadInput, PatchError

_ET_CORE, _EM_X86_64 = 4, 62
_PT_LOAD, _PT_NOTE = 1, 4
_NT_PRSTATUS, _NT_PRPSINFO, _NT_FILE = 1, 3, 0x46494C45
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_NHDR = struct.Struct("<III")
_MANY_HEADERS = 0xFFFF  # PN_XNUM: how many there are says the first section header
_PID_IN_PRSTATUS = 32  # struct elf_prstatus: after siginfo, cursig, sigpend and sighold
_PID_IN_PRPSINFO, _NAME_IN_PRPSINFO, _ARGUMENTS_IN_PRPSINFO = 24, 40, 56
_NAME_BYTES, _ARGUMENTS_BYTES = 16, 80


@dataclass(frozen=True, slots=True)
class Piece:
    """Memory [start, start + size) of the process that the core holds, at `offset` of the file."""

    start: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A part of a file that was mapped at [start, end), from `offset` of the file on."""

    start: int
    end: int
    offset: int
    path: str


class CoreFile:
    """An open core of an x86-64 process; a context manager. Raises BadInput for anything else, and
    when it cannot be opened.

    pid, comm, arguments  of the process, as its notes say
    tids                  its threads, the one that died first
    files                 what was mapped of files
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self._size = os.fstat(file.fileno()).st_size
                self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read {path}", cause=str(error)) from error
        self.pid = 0
        self.comm = self.arguments = b""
        self.tids: list[int] = []
        self.files: list[MappedFile] = []
        try:
            self._parse()
        except BadInput:
            self._map.close()
            raise
        except (struct.error, ValueError, IndexError) as error:
            self._map.close()
            raise BadInput(f"{path} is damaged", cause=str(error)) from error

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pieces(self) -> list[Piece]:
        """What memory the core holds, by address. Less than the headers say where it was cut
        off."""
        return self._pieces

    def read(self, address: int, count: int) -> bytes:
        """Exactly `count` bytes at an address of the process. Raises PatchError when the core does
        not hold them."""
        found = self.read_some(address, count)
        if len(found) != count:
            raise PatchError(
                f"the core does not hold {count} bytes at {address:#x}",
                address=address,
                cause="it was cut off, or coredump_filter left them out",
            )
        return found

    def read_u64(self, address: int) -> int:
        """The word at an address. Raises as read()."""
        return int.from_bytes(self.read(address, 8), "little")

    def read_some(self, address: int, count: int) -> bytes:
        """At most `count` bytes at an address, as many as the core holds without a hole."""
        parts = []
        while count:
            number = bisect_right(self._starts, address) - 1
            piece = self._pieces[number] if number >= 0 else None
            if piece is None or address >= piece.start + piece.size:
                break
            at = piece.offset + address - piece.start
            part = self._map[at : at + min(count, piece.start + piece.size - address)]
            parts.append(part)
            address += len(part)
            count -= len(part)
        return b"".join(parts)

    def offset_of(self, address: int, count: int) -> int | None:
        """Where in the file `count` bytes at an address lie, None if not in one piece."""
        number = bisect_right(self._starts, address) - 1
        if number < 0:
            return None
        piece = self._pieces[number]
        inside = address + count <= piece.start + piece.size
        return piece.offset + address - piece.start if inside else None

    def _parse(self) -> None:
        if self._size < _EHDR.size or self._map[:7] != b"\x7fELF\x02\x01\x01":
            raise BadInput(f"{self.path} is no core file", cause="it is no 64-bit ELF file")
        header = _EHDR.unpack_from(self._map)
        if header[1] != _ET_CORE or header[2] != _EM_X86_64:
            raise BadInput(f"{self.path} is no core file of an x86-64 process")
        programs, sections, size, count = header[5], header[6], header[9], header[10]
        if count == _MANY_HEADERS:
            count = _SHDR.unpack_from(self._map, sections)[7]
        if count and size != _PHDR.size:
            raise BadInput(f"{self.path} is damaged", cause=f"program headers of {size} bytes")
        pieces, notes = [], []
        for number in range(count):
            row = _PHDR.unpack_from(self._map, programs + number * size)
            kind, _, offset, vaddr, _, bytes_held = row[:6]
            held = max(0, min(bytes_held, self._size - offset))
            if kind == _PT_LOAD and held:
                pieces.append(Piece(vaddr, held, offset))
            elif kind == _PT_NOTE:
                notes.append((offset, held))
        self._pieces = sorted(pieces, key=lambda piece: piece.start)
        self._starts = [piece.start for piece in self._pieces]
        for offset, held in notes:
            for kind, text in self._notes(offset, held):
                self._note(kind, text)

    def _notes(self, offset: int, count: int) -> Iterator[tuple[int, bytes]]:
        end = offset + count
        while offset + _NHDR.size <= end:
            name_bytes, text_bytes, kind = _NHDR.unpack_from(self._map, offset)
            text = offset + _NHDR.size + -(-name_bytes // 4) * 4
            yield kind, self._map[text : min(text + text_bytes, end)]
            offset = text + -(-text_bytes // 4) * 4

    def _note(self, kind: int, text: bytes) -> None:
        if kind == _NT_PRSTATUS:
            self.tids.append(struct.unpack_from("<i", text, _PID_IN_PRSTATUS)[0])
        elif kind == _NT_PRPSINFO:
            self.pid = struct.unpack_from("<i", text, _PID_IN_PRPSINFO)[0]
            self.comm = _string(text[_NAME_IN_PRPSINFO:][:_NAME_BYTES])
            self.arguments = _string(text[_ARGUMENTS_IN_PRPSINFO:][:_ARGUMENTS_BYTES]).rstrip()
        elif kind == _NT_FILE:
            self.files = _files(text)


def _string(text: bytes) -> bytes:
    return text.partition(b"\0")[0]


def _files(text: bytes) -> list[MappedFile]:
    # count, page size, then {start, end, offset in pages} each, then their names.
    count, page = struct.unpack_from("<QQ", text)
    names = text[16 + 24 * count :].split(b"\0")
    rows = struct.iter_unpack("<QQQ", text[16 : 16 + 24 * count])
    return [
        MappedFile(start, end, at * page, os.fsdecode(name))
        for (start, end, at), name in zip(rows, names, strict=False)
    ]
