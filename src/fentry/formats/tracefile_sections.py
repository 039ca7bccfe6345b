"""Sections of a trace file: finding them through the index, or by walking and resynchronising.

Only the frames are looked at here, never what is in them.  Everything works on a read-only
buffer (a mapped file) and trusts no number in it before its checksum has matched.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fentry.errors import TraceFileError
from fentry.formats import tracefile_layout as layout
from fentry.formats.tracefile_layout import SectionKind

_HEADER_BYTES = layout.SECTION_STRUCT.size
_MAGIC_BYTES = layout.SECTION_MAGIC.to_bytes(4, "little")
_END_BYTES = _HEADER_BYTES + layout.END_PAYLOAD.itemsize


class Damage(NamedTuple):
    """Something wrong at `offset` bytes from the start of the file."""

    offset: int
    what: str


class Section(NamedTuple):
    """Where a section lies; `available` < `payload_bytes` when its end is missing.

    `suspect` when no section follows where it should: bytes may be missing from its payload,
    or be too many, at a place that nobody knows.
    """

    offset: int
    kind: int
    payload_bytes: int
    available: int
    sequence: int
    payload_crc: int
    suspect: bool = False

    @property
    def payload_offset(self) -> int:
        """Offset of the payload in the file."""
        return self.offset + _HEADER_BYTES

    @property
    def next_offset(self) -> int:
        """Where the next section should start."""
        end = self.payload_offset + self.payload_bytes
        return end + layout.padding(self.payload_bytes)


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The file header's content; when `damaged` sections may begin anywhere, from 0 on."""

    file_id: int
    header_bytes: int
    created_ns: int
    damaged: bool


def read_file_header(data: mmap.mmap) -> FileHeader:
    """The header at offset 0.

    Raises TraceFileError for a whole header of another version; a header that is damaged or
    absent is for the caller to judge by whether sections follow.
    """
    size = layout.FILE_HEADER.itemsize
    raw = data[:size]
    if len(raw) < size or raw[:8] != layout.FILE_MAGIC or not _crc_fits(raw):
        return FileHeader(0, 0, 0, damaged=True)
    header = np.frombuffer(raw, layout.FILE_HEADER)[0]
    if header["version"] not in (layout.VERSION, layout.PACKED_VERSION):
        raise TraceFileError(
            f"cannot read a trace of version {header['version']}",
            offset=8,
            cause=f"this fentry reads versions {layout.VERSION} and {layout.PACKED_VERSION}",
            remedy="the fentry that recorded it, or a newer one",
        )
    return FileHeader(
        int(header["file_id"]), int(header["header_bytes"]), int(header["created_ns"]), False
    )


def section_at(data: mmap.mmap, offset: int, file_id: int | None) -> Section | None:
    """The section whose header lies whole and unharmed at `offset`, else None.

    `file_id` None accepts the sections of any file.
    """
    raw = data[offset : offset + _HEADER_BYTES]
    if len(raw) < _HEADER_BYTES or raw[:4] != _MAGIC_BYTES or not _crc_fits(raw):
        return None
    fields = layout.SECTION_STRUCT.unpack(raw)
    _magic, kind, _flags, payload_bytes, sequence, found_id, payload_crc, _crc = fields
    if file_id is not None and found_id != file_id:
        return None
    available = min(payload_bytes, len(data) - offset - _HEADER_BYTES)
    return Section(offset, kind, payload_bytes, available, sequence, payload_crc)


def id_at(data: mmap.mmap, offset: int) -> int:
    """The file id in the section header at `offset`."""
    return int(layout.SECTION_STRUCT.unpack(data[offset : offset + _HEADER_BYTES])[5])


def find_section(data: mmap.mmap, start: int, file_id: int | None) -> Section | None:
    """The first unharmed section header at or after `start`, at any alignment."""
    offset = data.find(_MAGIC_BYTES, start)
    while offset >= 0:
        section = section_at(data, offset, file_id)
        if section is not None:
            return section
        offset = data.find(_MAGIC_BYTES, offset + 1)
    return None


def walk(data: mmap.mmap, start: int, file_id: int | None) -> Iterator[Section | Damage]:
    """All sections from `start` on in file order, and the damage between them.

    A section cut short (by the end of the file, or by lost bytes in the middle) comes with
    `available` saying how much of its payload is there.
    """
    section = section_at(data, start, file_id)
    if section is None:
        section = find_section(data, start, file_id)
        stop = len(data) if section is None else section.offset
        if stop > start:
            yield Damage(start, f"{stop - start} bytes are no section")
    if section is not None and file_id is None:
        file_id = id_at(data, section.offset)
    while section is not None:
        follower = section_at(data, section.next_offset, file_id)
        whole = section.available == section.payload_bytes
        if follower is None and (not whole or section.next_offset < len(data)):
            follower = find_section(data, section.payload_offset, file_id)
            section, damage = _judge(data, section, follower)
            yield damage
        yield section
        if follower is not None and follower.sequence > section.sequence + 1:
            lost = follower.sequence - section.sequence - 1
            yield Damage(section.next_offset, f"{lost} sections are missing here")
        section = follower


def sections_of_index(data: mmap.mmap, file_id: int) -> NDArray[np.void] | None:
    """INDEX_ENTRY[n] of the whole file in file order, or None when END or an INDEX is not whole.

    Reads END and the chain of INDEX sections only, so it takes the same time for any number of
    records.
    """
    end = section_at(data, len(data) - _END_BYTES, file_id) if len(data) >= _END_BYTES else None
    if end is None or end.kind != SectionKind.END or not payload_fits(data, end):
        return None
    totals = np.frombuffer(data[end.payload_offset :], layout.END_PAYLOAD)[0]
    if int(totals["own_offset"]) != end.offset:
        return None  # bytes were lost or added before it
    blocks: list[NDArray[np.void]] = []
    offset = int(totals["last_index"])
    limit = end.offset
    while offset:
        if offset >= limit:
            return None
        block = _index_block(data, offset, file_id)
        if block is None:
            return None
        limit, offset = offset, block[0]
        blocks.append(block[1])
    if sum(map(len, blocks)) + len(blocks) != int(totals["sections"]) or not blocks:
        return None
    return np.concatenate(blocks[::-1])


def payload_fits(data: mmap.mmap, section: Section) -> bool:
    """Whether the checksum of the payload (of RECORDS: of its header) matches."""
    if section.kind == SectionKind.RECORDS:
        checked = min(section.available, layout.RECORDS_HEADER.itemsize)
    elif section.available < section.payload_bytes:
        return False
    else:
        checked = section.payload_bytes
    start = section.payload_offset
    return zlib.crc32(data[start : start + checked]) == section.payload_crc


def _index_block(data: mmap.mmap, offset: int, file_id: int) -> tuple[int, NDArray[np.void]] | None:
    section = section_at(data, offset, file_id)
    if section is None or section.kind != SectionKind.INDEX or not payload_fits(data, section):
        return None
    start = section.payload_offset
    payload = data[start : start + section.payload_bytes]
    head_bytes = layout.INDEX_HEADER.itemsize
    if len(payload) < head_bytes:
        return None
    head = np.frombuffer(payload, layout.INDEX_HEADER, 1)[0]
    if len(payload) != head_bytes + int(head["count"]) * layout.INDEX_ENTRY.itemsize:
        return None
    return int(head["previous"]), np.frombuffer(payload, layout.INDEX_ENTRY, -1, head_bytes)


def _judge(data: mmap.mmap, section: Section, follower: Section | None) -> tuple[Section, Damage]:
    # `section` is not followed by one where it should be: what of it is there, what is wrong
    kind = kind_name(section.kind)
    stop = len(data) if follower is None else follower.offset
    if stop < section.payload_offset + section.payload_bytes:
        available = stop - section.payload_offset
        missing = section.payload_bytes - available
        what = f"{kind} section cut short, {missing} of {section.payload_bytes} bytes are missing"
        return section._replace(available=available, suspect=True), Damage(section.offset, what)
    what = f"{max(stop - section.next_offset, 0)} bytes after the {kind} section are no section"
    return section._replace(suspect=True), Damage(section.next_offset, what)


def kind_name(kind: int) -> str:
    """The name of a section kind for messages."""
    return SectionKind(kind).name if kind in set(SectionKind) else f"unknown ({kind})"


def _crc_fits(raw: bytes) -> bool:
    return zlib.crc32(raw[:-4]) == int.from_bytes(raw[-4:], "little")
