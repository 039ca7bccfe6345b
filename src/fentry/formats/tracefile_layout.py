"""Every magic, offset and bit width of the trace file, once (docs/formats/trace_file.md).

A test reads the tables of that page and compares them with the dtypes here, so the page and the
code cannot drift apart.  All numbers are little endian.  Records themselves have the ring's own
layout (fentry.ring.layout) and are not described again.
"""

from __future__ import annotations

import enum
import struct

import numpy as np

FILE_MAGIC = b"\x89fentry\n"
"""The first byte is not ASCII and the last a newline: a copy in text mode is noticed."""

VERSION = 1

PACKED_VERSION = 2
"""Of a file whose records are compressed: fentry that does not know PACKED refuses it, rather than
show a trace without records."""

PACKED_RECORDS = 65536
"""Most records of a PACKED section: what its damage costs, and what a reader has to hold."""

SECTION_MAGIC = int.from_bytes(b"\xf3Sec", "little")

SECTION_ALIGN = 8
"""Sections start at multiples of this, so that records can be viewed in place."""

MAX_JSON_BYTES = 64 << 20
"""A JSON section longer than this is taken for damage: a reader parses it as a whole."""

INDEX_ENTRIES = 4096
"""So many sections are kept in the writer's memory before an INDEX section takes them."""


class SectionKind(enum.IntEnum):
    """What a section holds; readers skip numbers that are not here."""

    META = 1
    RECORDS = 2
    SITES = 3
    SYMBOLS = 4
    MODULES = 5
    TASKS = 6
    CLOCK = 7
    LOSSES = 8
    EVENTS = 9
    INDEX = 10
    END = 11
    PACKED = 12


FILE_HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("header_bytes", "<u4"),
        ("file_id", "<u4"),
        ("flags", "<u4"),
        ("created_ns", "<i8"),
        ("reserved", "V24"),
        ("reserved2", "<u4"),
        ("header_crc", "<u4"),
    ]
)

SECTION_HEADER = np.dtype(
    [
        ("magic", "<u4"),
        ("kind", "<u2"),
        ("flags", "<u2"),
        ("payload_bytes", "<u8"),
        ("sequence", "<u4"),
        ("file_id", "<u4"),
        ("payload_crc", "<u4"),
        ("header_crc", "<u4"),
    ]
)

RECORDS_HEADER = np.dtype(
    [
        ("cpu", "<u4"),
        ("record_bytes", "<u4"),
        ("first_position", "<u8"),
        ("count", "<u8"),
        ("capacity", "<u8"),
    ]
)

PACKED_HEADER = np.dtype(
    [
        ("cpu", "<u4"),
        ("record_bytes", "<u4"),
        ("first_position", "<u8"),
        ("count", "<u8"),
        ("capacity", "<u8"),
        ("first_time", "<u8"),
    ]
)

PLANE_ENTRY = np.dtype([("stored_bytes", "<u4"), ("value", "u1"), ("reserved", "V3")])

SITE_ENTRY = np.dtype([("key", "<u4"), ("reserved", "<u4"), ("ip", "<u8")])

SYMBOLS_HEADER = np.dtype([("count", "<u8"), ("names_bytes", "<u8")])

SYMBOL_ENTRY = np.dtype(
    [
        ("ip", "<u8"),
        ("size_bytes", "<u8"),
        ("offset", "<u8"),
        ("module", "<u4"),
        ("name_bytes", "<u4"),
        ("name_offset", "<u8"),
    ]
)

TASK_ENTRY = np.dtype([("seen_ns", "<i8"), ("tid", "<u4"), ("reserved", "<u4"), ("comm", "S16")])

CLOCK_ENTRY = np.dtype([("tsc", "<u8"), ("monotonic_ns", "<i8"), ("realtime_ns", "<i8")])

LOSSES_ENTRY = np.dtype(
    [
        ("cpu", "<u4"),
        ("reserved", "<u4"),
        ("recorded", "<u8"),
        ("dropped_events", "<u8"),
        ("overrun", "<u8"),
        ("incomplete", "<u8"),
    ]
)

INDEX_HEADER = np.dtype([("previous", "<u8"), ("count", "<u8")])

INDEX_ENTRY = np.dtype(
    [
        ("offset", "<u8"),
        ("payload_bytes", "<u8"),
        ("sequence", "<u4"),
        ("kind", "<u2"),
        ("cpu", "<u2"),
        ("records", "<u8"),
    ]
)

END_PAYLOAD = np.dtype(
    [
        ("own_offset", "<u8"),
        ("last_index", "<u8"),
        ("sections", "<u8"),
        ("records", "<u8"),
        ("closed_ns", "<i8"),
    ]
)

DTYPES: dict[str, np.dtype[np.void]] = {
    "file header": FILE_HEADER,
    "section header": SECTION_HEADER,
    "RECORDS header": RECORDS_HEADER,
    "PACKED header": PACKED_HEADER,
    "PLANE entry": PLANE_ENTRY,
    "SITES entry": SITE_ENTRY,
    "SYMBOLS header": SYMBOLS_HEADER,
    "SYMBOLS entry": SYMBOL_ENTRY,
    "TASKS entry": TASK_ENTRY,
    "CLOCK entry": CLOCK_ENTRY,
    "LOSSES entry": LOSSES_ENTRY,
    "INDEX header": INDEX_HEADER,
    "INDEX entry": INDEX_ENTRY,
    "END payload": END_PAYLOAD,
}
"""By the heading of its table in the format page; the test walks this."""

NO_MODULE = 0xFFFF_FFFF
"""Value of SYMBOLS entry.module for a symbol that lies in no file."""


def padding(nr_bytes: int) -> int:
    """Zero bytes between a payload of `nr_bytes` and the next section."""
    return -nr_bytes % SECTION_ALIGN


def struct_of(dtype: np.dtype[np.void]) -> struct.Struct:
    """The same layout for the struct module: ten times as fast for one header at a time."""
    codes = {2: "H", 4: "I", 8: "Q"}
    return struct.Struct("<" + "".join(codes[dtype[name].itemsize] for name in dtype.names or ()))


SECTION_STRUCT = struct_of(SECTION_HEADER)
RECORDS_STRUCT = struct_of(RECORDS_HEADER)
PACKED_STRUCT = struct_of(PACKED_HEADER)

MAX_PACKED_BYTES = PACKED_HEADER.itemsize + 24 * (PLANE_ENTRY.itemsize + PACKED_RECORDS)
"""The payload of a PACKED section is never longer: a plane that deflating does not make smaller is
stored as it is."""
