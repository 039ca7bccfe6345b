"""Records compressed: the payload of a PACKED section after its header, made and read back.

A record's bytes are alike one record after the other, not one beside the other.  So times become
differences and all records' first bytes are stored, then their second ones, and so on: planes.  A
plane of equal bytes, of which most records have more than ten, costs no work; the others are
deflated (RFC 1951), the fastest way, or stored as they are where that does not make them smaller.

Pure functions; measured beside other ways in docs/design/trace_file.md.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from fentry.formats import tracefile_layout as layout
from fentry.ring.layout import record_dtype

_LEVEL = 1
_WBITS = -15  # bare deflate: the section's checksum stands for zlib's own

Plane = NDArray[np.uint8]


def pack(records: NDArray[np.void]) -> bytes:
    """The PLANE entries and planes of 1 to PACKED_RECORDS records."""
    entries = np.zeros(records.dtype.itemsize, layout.PLANE_ENTRY)
    stored: list[bytes] = []
    for name, at in _columns(records.dtype):
        column = np.ascontiguousarray(records[name])
        if name == "time":
            column = np.diff(column, prepend=column[:1])
        entries["value"][at : at + column.itemsize] = column[:1].view(np.uint8)
        varying = int(np.bitwise_or.reduce(column ^ column[0]))
        places = [i for i in range(column.itemsize) if varying >> 8 * i & 0xFF]
        for i in places:
            plane = np.ascontiguousarray(column.view(np.uint8)[i :: column.itemsize])
            stored.append(_deflated(plane))
            entries["stored_bytes"][at + i] = len(stored[-1])
    return b"".join([entries.tobytes(), *stored])


def unpack(packed: bytes, count: int, record_bytes: int, first_time: int) -> NDArray[np.void]:
    """The `count` records read back.

    Nothing is allocated beyond their size, whatever `packed` says. Raises ValueError when it does
    not hold exactly them.
    """
    dtype = record_dtype(record_bytes)
    table_bytes = record_bytes * layout.PLANE_ENTRY.itemsize
    if len(packed) < table_bytes:
        raise ValueError("shorter than its table of planes")
    entries = np.frombuffer(packed, layout.PLANE_ENTRY, record_bytes)
    sizes, values = entries["stored_bytes"].tolist(), entries["value"]
    if table_bytes + sum(sizes) != len(packed):
        raise ValueError("its planes do not fill it")
    records = np.empty(count, dtype)
    offset = table_bytes
    for name, at in _columns(dtype):
        size = dtype[name].itemsize
        column = np.full(count, values[at : at + size].copy().view(dtype[name])[0])
        for i, stored in enumerate(sizes[at : at + size]):
            if stored:
                plane = _inflated(packed[offset : offset + stored], count)
                column.view(np.uint8)[i::size] = plane
                offset += stored
        if name == "time":
            column[0] = first_time
            np.cumsum(column, out=column)
        records[name] = column
    return records


def _columns(dtype: np.dtype[np.void]) -> list[tuple[str, int]]:
    # names and offsets; the fields of a record follow one another without a gap
    assert dtype.fields is not None
    return [(name, dtype.fields[name][1]) for name in dtype.names or ()]


def _deflated(plane: Plane) -> bytes:
    packed = zlib.compress(plane.data, _LEVEL, wbits=_WBITS)
    return packed if len(packed) < len(plane) else plane.tobytes()


def _inflated(stored: bytes, count: int) -> Plane:
    if len(stored) == count:
        return np.frombuffer(stored, np.uint8)
    inflater = zlib.decompressobj(_WBITS)
    try:
        plane = inflater.decompress(stored, count + 1)
    except zlib.error as error:
        raise ValueError(f"a plane cannot be decompressed: {error}") from error
    if len(plane) != count or not inflater.eof or inflater.unused_data:
        raise ValueError(f"a plane does not hold {count} bytes")
    return np.frombuffer(plane, np.uint8)
