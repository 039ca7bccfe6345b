"""Names and frames of generated code for other tools: an ELF file for gdb, a map for perf.

ELF: System V gABI, chapter 4. Frames: DWARF 5, 6.4.1, in a .debug_frame of version 1. The map:
tools/perf/Documentation/jit-interface.txt of the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from fentry.x86.unwind import RSP, Row

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_ET_EXEC, _EM_X86_64 = 2, 62
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_NOBITS = 1, 2, 3, 8
_ALLOC_EXEC = 6  # SHF_ALLOC | SHF_EXECINSTR
_GLOBAL_FUNCTION = 0x12  # STB_GLOBAL, STT_FUNC

_RETURN_ADDRESS = 16  # psABI, figure 3.36
_DEF_CFA, _ADVANCE4, _OFFSET, _SAME_VALUE = 0x0C, 0x04, 0x80, 0x08  # DW_CFA_*
_NO_CIE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Piece:
    """A named piece of code in a target: address, bytes, and its frames, none where unknown."""

    name: str
    address: int
    size: int
    rows: tuple[Row, ...] = ()


def elf_file(segments: Sequence[tuple[int, int]], pieces: Sequence[Piece]) -> bytes:
    """An ELF file with the symbols and frames of `pieces`, which lie in `segments` of (address,
    bytes): for gdb's add-symbol-file."""
    names = ["", *(f".text.{number}" for number in range(len(segments)))]
    names += [".symtab", ".strtab", ".debug_frame", ".shstrtab"]
    strings, offsets = _strings(names)
    symbols, symbol_names = _symbols(segments, pieces)
    contents = [symbols, symbol_names, _frames(pieces), strings]
    body, places = b"", []
    for content in contents:
        places.append(_EHDR.size + len(body))
        body += content.ljust(-(-len(content) // 8) * 8, b"\0")
    rows = [_SHDR.pack(*[0] * 10)]
    for number, (address, count) in enumerate(segments, 1):
        rows.append(
            _SHDR.pack(
                offsets[number], _SHT_NOBITS, _ALLOC_EXEC, address, _EHDR.size, count, 0, 0, 16, 0
            )
        )
    kinds = (_SHT_SYMTAB, _SHT_STRTAB, _SHT_PROGBITS, _SHT_STRTAB)
    for number, (kind, place, content) in enumerate(zip(kinds, places, contents, strict=True)):
        at = len(segments) + 1 + number
        link, info, size = (at + 1, 1, _SYM.size) if kind == _SHT_SYMTAB else (0, 0, 0)
        rows.append(_SHDR.pack(offsets[at], kind, 0, 0, place, len(content), link, info, 8, size))
    header = _EHDR.pack(
        _IDENT, _ET_EXEC, _EM_X86_64, 1, 0, 0, _EHDR.size + len(body), 0,
        _EHDR.size, 0, 0, _SHDR.size, len(rows), len(rows) - 1,
    )  # fmt: skip
    return header + body + b"".join(rows)


def perf_map(pieces: Sequence[Piece]) -> str:
    """The lines of /tmp/perf-PID.map: start and size in hex, name."""
    return "".join(f"{one.address:x} {one.size:x} {one.name}\n" for one in pieces)


def _strings(names: Sequence[str]) -> tuple[bytes, list[int]]:
    text, offsets = b"", []
    for name in names:
        offsets.append(len(text))
        text += name.encode("utf-8", "replace") + b"\0"
    return text, offsets


def _symbols(segments: Sequence[tuple[int, int]], pieces: Sequence[Piece]) -> tuple[bytes, bytes]:
    text, offsets = _strings(["", *(one.name for one in pieces)])
    rows = [_SYM.pack(0, 0, 0, 0, 0, 0)]
    for one, offset in zip(pieces, offsets[1:], strict=True):
        section = next(
            number for number, (address, count) in enumerate(segments, 1)
            if address <= one.address < address + count
        )  # fmt: skip
        rows.append(_SYM.pack(offset, _GLOBAL_FUNCTION, 0, section, one.address, one.size))
    return b"".join(rows), text


def _frames(pieces: Sequence[Piece]) -> bytes:
    # One common entry: no augmentation, code alignment 1, data alignment -8 (0x78).
    start = struct.pack("<IB", _NO_CIE, 1) + b"\0\x01\x78" + bytes([_RETURN_ADDRESS])
    start += bytes([_DEF_CFA, RSP, 8, _OFFSET | _RETURN_ADDRESS, 1])
    parts = [_entry(start)]
    for one in pieces:
        if one.rows:
            head = struct.pack("<IQQ", 0, one.address, one.size)
            parts.append(_entry(head + _rows(one.rows)))
    return b"".join(parts)


def _entry(text: bytes) -> bytes:
    text = text.ljust(-(-(len(text) + 4) // 8) * 8 - 4, b"\0")  # DW_CFA_nop
    return struct.pack("<I", len(text)) + text


def _rows(rows: Sequence[Row]) -> bytes:
    text, at = b"", 0
    saved: dict[int, int] = {}
    for row in rows:
        if row.offset > at:
            text += struct.pack("<BI", _ADVANCE4, row.offset - at)
            at = row.offset
        text += bytes([_DEF_CFA, row.register]) + _uleb128(row.distance)
        now = dict(row.saved)
        for number in saved.keys() - now.keys():
            text += bytes([_SAME_VALUE, number])
        for number, distance in now.items():
            if saved.get(number) != distance:
                text += bytes([_OFFSET | number]) + _uleb128(distance // 8)
        saved = now
    return text


def _uleb128(value: int) -> bytes:
    text = b""
    while True:
        value, low = value >> 7, value & 0x7F
        text += bytes([low | 0x80 if value else low])
        if not value:
            return text
