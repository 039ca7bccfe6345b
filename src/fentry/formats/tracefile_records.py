"""Records of one section of a trace file, compressed or not.

Pure functions of a read-only buffer; what is wrong with a section comes as a ValueError whose text
is for the report of the damage.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fentry.formats import tracefile_layout as layout
from fentry.formats.tracefile_layout import SectionKind
from fentry.formats.tracefile_packing import unpack
from fentry.formats.tracefile_sections import Section, kind_name, payload_fits
from fentry.ring.layout import LAPS, TID_BITS, TID_MASK, record_dtype

CHUNK_RECORDS = 65536
"""Records decoded at once: 1.5 MB of them, which stays in a CPU's cache."""

KINDS = (SectionKind.RECORDS, SectionKind.PACKED)
"""Sections that hold records."""

_MAX_CPU = 0xFFFF
_MAX_CAPACITY = 1 << 48
_SMALL_CAPACITY = 1 << 12


@dataclass(frozen=True, slots=True)
class RecordsHead:
    """What a section says of its records; of a RECORDS section that is cut short, `count` are
    those that are there."""

    cpu: int
    record_bytes: int
    first_position: int
    count: int
    capacity: int
    first_time: int = 0


def read_head(data: mmap.mmap, section: Section) -> RecordsHead:
    """The header of a section of KINDS. Raises ValueError when it is damaged or makes no sense, and
    for a PACKED section of which any byte is damaged or missing."""
    packed = section.kind == SectionKind.PACKED
    form = layout.PACKED_STRUCT if packed else layout.RECORDS_STRUCT
    if packed:
        _check_packed(data, section)
    elif section.available < form.size or not payload_fits(data, section):
        raise ValueError("the header of a RECORDS section is damaged")
    start = section.payload_offset
    head = RecordsHead(*form.unpack(data[start : start + form.size]))
    if (
        head.record_bytes not in (16, 24)
        or not 0 < head.capacity < _MAX_CAPACITY
        or head.cpu > _MAX_CPU
        or (packed and not 0 < head.count <= layout.PACKED_RECORDS)
    ):
        raise ValueError(f"the header of a {kind_name(section.kind)} section makes no sense")
    if packed:
        return head
    if head.count * head.record_bytes + form.size != section.payload_bytes:
        raise ValueError("the size of a RECORDS section is not that of its records")
    there = (section.available - form.size) // head.record_bytes
    return replace(head, count=min(head.count, there))


def chunks(
    data: mmap.mmap, section: Section, head: RecordsHead
) -> Iterator[tuple[int, NDArray[np.void]]]:
    """The position of the first of, and up to CHUNK_RECORDS records at a time: views of the file,
    of a PACKED section an array. Raises ValueError when a PACKED section does not hold them."""
    offset = section.payload_offset
    if section.kind == SectionKind.PACKED:
        packed = data[offset + layout.PACKED_STRUCT.size : offset + section.payload_bytes]
        try:
            records = unpack(packed, head.count, head.record_bytes, head.first_time)
        except ValueError as error:
            raise ValueError(f"a PACKED section: {error}") from error
        yield head.first_position, records
        return
    offset += layout.RECORDS_STRUCT.size
    dtype = record_dtype(head.record_bytes)
    for start in range(0, head.count, CHUNK_RECORDS):
        part = min(head.count - start, CHUNK_RECORDS)
        at = offset + start * head.record_bytes
        yield head.first_position + start, np.frombuffer(data, dtype, part, at)


def all_laps_fit(word: NDArray[np.uint32], first_position: int, capacity: int) -> bool:
    """Whether every record's lap is certainly that of its position: the usual answer, at half the
    cost of `laps_fit`, which is for when this is False."""
    lap = first_position // capacity
    if (first_position + len(word) - 1) // capacity != lap:
        return False  # the lap changes among them
    # with the lap taken away only a tid is left
    rest = word - np.uint32(lap % LAPS << TID_BITS)
    return not len(rest) or int(rest.max()) <= TID_MASK


def laps_fit(word: NDArray[np.uint32], first_position: int, capacity: int) -> NDArray[np.bool_]:
    """bool[n]: whether each record's lap is that of its position; else it is torn."""
    laps = word >> np.uint32(TID_BITS)
    if capacity < _SMALL_CAPACITY:
        turn = first_position % (capacity * LAPS) + np.arange(len(word), dtype=np.uint64)
        return np.asarray(laps == turn // np.uint64(capacity) % np.uint64(LAPS), np.bool_)
    # the lap is the same up to the next wrap: cheaper than one division for each record
    fits = np.empty(len(word), np.bool_)
    start = 0
    while start < len(word):
        position = first_position + start
        stop = min(len(word), start + capacity - position % capacity)
        np.equal(laps[start:stop], (position // capacity) % LAPS, out=fits[start:stop])
        start = stop
    return fits


def _check_packed(data: mmap.mmap, section: Section) -> None:
    # Its size first: what is checked is read as a whole.
    if not layout.PACKED_STRUCT.size <= section.payload_bytes <= layout.MAX_PACKED_BYTES:
        raise ValueError("the size of a PACKED section makes no sense")
    if section.available < section.payload_bytes:
        raise ValueError("a PACKED section is cut short, its records are lost")
    if not payload_fits(data, section):
        raise ValueError("a PACKED section does not match its checksum, its records are lost")
