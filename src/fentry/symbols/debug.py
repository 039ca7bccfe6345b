"""Symbols that a stripped file has elsewhere: in a separate debug file, or compressed inside it.

Places and checks are those of gdb ("Separate Debug Files" and "MiniDebugInfo" in its manual): by
build-id below /usr/lib/debug/.build-id, by the name in .gnu_debuglink beside the file, in .debug
beside it and below /usr/lib/debug, which must have the checksum that the link says; .gnu_debugdata
is an ELF file compressed with xz. Nothing is fetched from a network.
"""

from __future__ import annotations

import lzma
import os
import struct
import zlib
from collections.abc import Iterator

from fentry.errors import BadInput
from fentry.symbols.elf_file import ElfFile, SymbolArray

DEBUG_FOLDER = "/usr/lib/debug"
_LARGEST_BYTES = 1 << 30
_NOTE = ".note.gnu.build-id"


def find_symbols(image: ElfFile, path: str, root: str = "") -> list[SymbolArray]:
    """The symbol tables of a file without .symtab, from the first place that has one.

    `path` is where the file lies below `root`, the root directory of who maps it ("" for ours);
    what is found by build-id may lie below ours as well. What is damaged or another's is passed
    over: a function without a name can still be traced.
    """
    for name in _by_build_id(image, root):
        found = _opened(name)
        if found is not None and _build_id_of(found) == image.build_id:
            return found.static_symbols
    link, checksum = _link_of(image)
    if link:
        folder = os.path.dirname(path)
        for name in (
            f"{folder}/{link}",
            f"{folder}/.debug/{link}",
            f"{DEBUG_FOLDER}{folder}/{link}",
        ):
            found = _opened(root + name)
            if found is not None and zlib.crc32(found.data) == checksum:
                return found.static_symbols
    return _compressed(image)


def _by_build_id(image: ElfFile, root: str) -> Iterator[str]:
    build_id = image.build_id
    if len(build_id) > 2:
        for below in dict.fromkeys((root, "")):
            yield f"{below}{DEBUG_FOLDER}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"


def _opened(name: str) -> ElfFile | None:
    try:
        return ElfFile.open(name) if os.path.isfile(name) else None
    except (OSError, BadInput):
        return None


def _section(image: ElfFile, name: str) -> bytes:
    for section in image.sections:
        if section.name == name and section.size <= _LARGEST_BYTES:
            return bytes(image.at(section.offset, section.size, f"section {name}"))
    return b""


def _build_id_of(image: ElfFile) -> str:
    # From its section: the segments of a debug file have no bytes.
    note = _section(image, _NOTE)
    return (
        note[16:].hex() if note[4:16] == struct.pack("<II4s", len(note) - 16, 3, b"GNU\0") else ""
    )


def _link_of(image: ElfFile) -> tuple[str, int]:
    # .gnu_debuglink: a name, zeros up to a multiple of four bytes, the CRC-32 of the file.
    raw = _section(image, ".gnu_debuglink")
    name = raw.partition(b"\0")[0]
    place = len(name) + 4 & ~3
    if not name or b"/" in name or len(raw) < place + 4:
        return "", 0
    return os.fsdecode(name), int.from_bytes(raw[place : place + 4], "little")


def _compressed(image: ElfFile) -> list[SymbolArray]:
    raw = _section(image, ".gnu_debugdata")
    if not raw:
        return []
    try:
        data = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(raw, _LARGEST_BYTES)
        return ElfFile(data, name=f"{image.name} (.gnu_debugdata)").static_symbols
    except (lzma.LZMAError, BadInput):
        return []
