"""The address ranges that .eh_frame describes: functions of a file without symbols.

Not here: unwinding. Layout: LSB Core, "Exception Frames" (.eh_frame, .eh_frame_hdr) and
DWARF 5, 6.4 and 7.24.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.symbols.elf_file import ElfFile

# start and size: vaddr, bytes. signal: the frame of a signal's return ('S' augmentation).
# inside: at its first instruction registers are already saved or the stack has already moved,
# so it is not entered by a call: the .cold part of a function. catches: it may have landing pads
# ('L' augmentation), which the unwinder enters. lsda: vaddr of the table that says which, 0 for
# none, NO_LSDA where that cannot be told.
FRAME_DTYPE = np.dtype(
    [
        ("start", "<u8"),
        ("size", "<u8"),
        ("signal", "?"),
        ("inside", "?"),
        ("catches", "?"),
        ("lsda", "<u8"),
    ]
)
NO_LSDA = 2**64 - 1

_PT_GNU_EH_FRAME = 0x6474E550
_DATAREL_SDATA4 = 0x3B
_PCREL = 0x10
_INDIRECT = 0x80
_WIDTHS = {0x00: 8, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}
_SIGNED = 0x08
_DW_CFA_DEF_CFA, _DW_CFA_DEF_CFA_OFFSET, _DW_CFA_OFFSET = 0x0C, 0x0E, 0x80
# def_cfa, def_cfa_register, def_cfa_offset, def_cfa_expression and their signed forms.
_CFA_CHANGES = (0x0C, 0x0D, 0x0E, 0x0F, 0x12, 0x13)
_RSP, _CALL_CFA_OFFSET = 7, 8


@dataclass(frozen=True, slots=True)
class _Cie:
    encoding: int
    signal: bool
    has_size: bool
    catches: bool
    lsda_encoding: int = 0


def frame_ranges(image: ElfFile) -> NDArray[np.void]:
    """Every range of .eh_frame, FRAME_DTYPE[n] sorted by start; empty if there is none.

    Raises BadInput where the table contradicts itself.
    """
    header = next((s.vaddr for s in image.segments if s.type == _PT_GNU_EH_FRAME), 0)
    raw = image.read(header, 12) if header else b""
    if len(raw) == 12 and raw[0] == 1 and raw[1] in (0x1B, 0x03):
        frame = (
            struct.unpack_from("<i", raw, 4)[0] + (header + 4 if raw[1] == 0x1B else 0)
        ) % 2**64
        count = struct.unpack_from("<I", raw, 8)[0]
        if raw[2] == 0x03 and raw[3] == _DATAREL_SDATA4:
            return _from_search_table(image, header, count)
        return _walk(image, frame)
    section = next((s for s in image.sections if s.name == ".eh_frame"), None)
    return _walk(image, section.vaddr, section.size) if section else np.zeros(0, FRAME_DTYPE)


def _from_search_table(image: ElfFile, header: int, count: int) -> NDArray[np.void]:
    """All FDEs that the binary search table of .eh_frame_hdr lists, without a loop over them."""
    table = image.tail(header + 12)[: count * 8]
    if len(table) < count * 8:
        raise image.damaged(".eh_frame_hdr", header, f"{count} entries do not fit")
    entries = table.view("<i4").reshape(-1, 2).astype(np.int64) + header
    if not count:
        return np.zeros(0, FRAME_DTYPE)
    lowest = int(entries[:, 1].min())
    data = image.tail(lowest)
    at = entries[:, 1] - lowest
    data = np.concatenate([data, np.zeros(8, np.uint8)])  # the last one may have 16 bytes only
    if not len(at) or int(at.max()) + 24 > len(data):
        raise image.damaged(".eh_frame_hdr", header, "an entry points outside of its segment")
    back = _gather(data, at + 4, "<u4").astype(np.int64)
    return _describe(image, entries[:, 1], entries[:, 1] + 4 - back)


def _walk(image: ElfFile, frame: int, size: int | None = None) -> NDArray[np.void]:
    """All FDEs found by following the records of .eh_frame from its first; `size`: its bytes, where
    they are known (only crtend.o ends it with zeros)."""
    data = image.tail(frame)[:size].tobytes()
    fdes, cies = [], []
    position = 0
    while position + 8 <= len(data):
        length, back = struct.unpack_from("<II", data, position)
        if length == 0:
            break
        if length < 4 or length >= 0xFFFF_FFF0:  # the 64-bit form is not made for x86-64
            raise image.damaged(".eh_frame", frame + position, f"a record of {length} bytes")
        if back:
            fdes.append(frame + position)
            cies.append(frame + position + 4 - back)
        position += 4 + length
    return _describe(image, np.array(fdes, np.int64), np.array(cies, np.int64))


def _describe(image: ElfFile, fdes: NDArray[np.int64], cies: NDArray[np.int64]) -> NDArray[np.void]:
    """The ranges of FDEs at addresses `fdes` whose CIEs are at `cies`."""
    parts = [
        _describe_alike(image, fdes[cies == cie], _parse_cie(image, int(cie)))
        for cie in np.unique(cies)
    ]
    if not parts:
        return np.zeros(0, FRAME_DTYPE)
    found = np.concatenate(parts)
    found = found[found["size"] > 0]
    return found[np.argsort(found["start"], kind="stable")]


def _describe_alike(image: ElfFile, fdes: NDArray[np.int64], cie: _Cie) -> NDArray[np.void]:
    width = _WIDTHS.get(cie.encoding & 0x0F)
    if width is None or cie.encoding & _INDIRECT or cie.encoding & 0x70 not in (0, _PCREL):
        raise image.damaged(".eh_frame", int(fdes[0]), f"pointer encoding 0x{cie.encoding:x}")
    lowest = int(fdes.min())
    data = image.tail(lowest)
    at = fdes - lowest
    body = 8 + 2 * width
    if int(at.max()) + body + 1 > len(data):
        raise image.damaged(".eh_frame", lowest, "a record runs out of its segment")
    signed = "i" if cie.encoding & _SIGNED else "u"
    start = _gather(data, at + 8, f"<{signed}{width}").astype(np.int64)
    if cie.encoding & 0x70 == _PCREL:
        start += fdes + 8
    found = np.zeros(len(fdes), FRAME_DTYPE)
    found["start"] = start.view(np.uint64)
    found["size"] = _gather(data, at + 8 + width, f"<u{width}")
    found["signal"] = cie.signal
    found["catches"] = cie.catches
    found["inside"] = _starts_inside(data, at, body, cie.has_size)
    if cie.catches:
        found["lsda"] = _lsdas(data, lowest, at + body, cie.lsda_encoding)
    top = max(s.vaddr + s.memory_size for s in image.loads)
    return found[(start >= 0) & (start < top) & (found["size"] < top)]


def _lsdas(
    data: NDArray[np.uint8], low: int, at: NDArray[np.int64], encoding: int
) -> NDArray[np.uint64]:
    """The first word of the augmentation data of FDEs, which begins at data[at]: uint64[n].

    `data` lies at vaddr `low`. 0 stands for none, whatever the word is relative to.
    """
    width = _WIDTHS.get(encoding & 0x0F)
    plain = encoding & _INDIRECT == 0 and encoding & 0x70 in (0, _PCREL)
    if width is None or not plain or int(at.max()) + 1 + width > len(data):
        return np.full(len(at), NO_LSDA, np.uint64)
    signed = "i" if encoding & _SIGNED else "u"
    words = _gather(data, at + 1, f"<{signed}{width}").astype(np.int64)
    base = at + 1 + low if encoding & _PCREL else np.zeros(len(at), np.int64)
    found = np.where(words != 0, words + base, 0).astype(np.uint64)
    found[data[at] < width] = 0  # an FDE without augmentation data
    return found


def _starts_inside(
    data: NDArray[np.uint8], at: NDArray[np.int64], body: int, has_size: bool
) -> NDArray[np.bool_]:
    """Whether an FDE's first rule holds at its first address and is not that of a call."""
    first = at + body
    if has_size:
        first = first + 1 + data[first]
    length = _gather(data, at, "<u4").astype(np.int64)
    there = (first + 3 < at + 4 + length) & (first + 3 < len(data))
    first = np.where(there, first, 0)
    op, arg, arg2 = data[first], data[first + 1], data[first + 2]
    changed = np.isin(op, _CFA_CHANGES) | (op & 0xC0 == _DW_CFA_OFFSET)
    as_called = (op == _DW_CFA_DEF_CFA_OFFSET) & (arg == _CALL_CFA_OFFSET)
    as_called |= (op == _DW_CFA_DEF_CFA) & (arg == _RSP) & (arg2 == _CALL_CFA_OFFSET)
    result: NDArray[np.bool_] = there & changed & ~as_called
    return result


def _parse_cie(image: ElfFile, vaddr: int) -> _Cie:
    raw = image.read(vaddr, 64)
    end = raw.find(b"\0", 9)
    if len(raw) < 16 or raw[4:8] != bytes(4) or end < 0:
        raise image.damaged(".eh_frame", vaddr, "not a common information entry")
    version, augmentation = raw[8], raw[9:end].decode("latin-1")
    if not augmentation.startswith("z"):
        return _Cie(0, False, False, False)
    position = _skip_leb(raw, _skip_leb(raw, end + 1))  # code and data alignment
    position = _skip_leb(raw, position) if version != 1 else position + 1  # return register
    position = _skip_leb(raw, position)  # size of the augmentation
    encoding = lsda_encoding = 0
    for letter in augmentation[1:]:
        if position >= len(raw):
            raise image.damaged(".eh_frame", vaddr, "augmentation does not end")
        if letter == "R":
            encoding = raw[position]
            position += 1
        elif letter == "P":
            position += 1 + _WIDTHS.get(raw[position] & 0x0F, 8)
        elif letter == "L":
            lsda_encoding = raw[position]
            position += 1
    return _Cie(encoding, "S" in augmentation, True, "L" in augmentation, lsda_encoding)


def _skip_leb(raw: bytes, position: int) -> int:
    while position < len(raw) and raw[position] & 0x80:
        position += 1
    return position + 1


def _gather(data: NDArray[np.uint8], at: NDArray[np.int64], dtype: str) -> NDArray[np.int64]:
    """Values of `dtype` at any byte positions."""
    width = np.dtype(dtype).itemsize
    rows = data[at[:, None] + np.arange(width)]
    values: NDArray[np.int64] = np.ascontiguousarray(rows).view(dtype).reshape(-1)
    return values
