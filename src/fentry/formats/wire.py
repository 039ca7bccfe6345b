"""The wire format of Protocol Buffers, for writers: single fields, and whole columns of messages.

Source: protobuf.dev, "Encoding": a field is the varint `number << 3 | type`, then a varint (type
0) or a varint length and so many bytes (type 2); a varint has 7 bits a byte, the lowest first, and
bit 7 set in all bytes but the last.  Zero bits may be added at its end: a number that is always
given the same room makes messages of one length, which numpy stores a column at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALL_64 = 0xFFFF_FFFF_FFFF_FFFF
_MORE = 0x80


def varint(value: int) -> bytes:
    """The shortest varint of a number; a negative one has 64 bits."""
    value &= _ALL_64
    out = bytearray()
    while value >= _MORE:
        out.append(value & 0x7F | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A field that is an integer, a bool or of an enum."""
    return varint(field << 3) + varint(value)


def message(field: int, *parts: bytes) -> bytes:
    """A field that is a message of these fields, or a text."""
    content = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(content)) + content


@dataclass(frozen=True, slots=True)
class Slot:
    """An integer field with another value in every row: the column `name`, in `nr_bytes` bytes.

    4 bytes hold 28 bits, 8 hold 56, 10 all 64.
    """

    field: int
    name: str
    nr_bytes: int


Part = bytes | Slot


def row(field: int, *parts: Part) -> list[Part]:
    """A field that is a message of these fields, some of which are slots."""
    head = varint(field << 3 | 2) + varint(sum(map(_length, parts)))
    return [head, *parts]


class Rows:
    """Messages that differ in their slots only."""

    def __init__(self, parts: Sequence[Part]) -> None:
        fields: dict[str, tuple[Any, int]] = {}
        template = bytearray()
        for part in parts:
            if isinstance(part, bytes):
                template += part
                continue
            template += varint(part.field << 3)
            fields[part.name] = (_WORDS[part.nr_bytes], len(template))
            template += bytes(part.nr_bytes)
        self._dtype = np.dtype(
            {
                "names": list(fields),
                "formats": [form for form, _ in fields.values()],
                "offsets": [offset for _, offset in fields.values()],
                "itemsize": len(template),
            }
        )
        self._template = np.frombuffer(bytes(template), np.uint8)

    def of(self, columns: Mapping[str, NDArray[Any]]) -> memoryview:
        """The messages, one after the other; columns[name][i] is in the i-th, an integer."""
        nr_rows = len(next(iter(columns.values())))
        out = np.empty((nr_rows, len(self._template)), np.uint8)
        out[:] = self._template
        fields = out.view(self._dtype)[:, 0]
        for name, values in columns.items():
            _store(fields[name], values.astype(np.uint64, copy=False))
        return out.reshape(-1).data


_HIGH = np.dtype([("low", "<u8"), ("high", "<u2")])
_WORDS = {4: np.dtype("<u4"), 8: np.dtype("<u8"), 10: _HIGH}


def _length(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else len(varint(part.field << 3)) + part.nr_bytes


def _store(out: NDArray[Any], values: NDArray[np.uint64]) -> None:
    if out.dtype == _WORDS[4]:
        out[:] = _spread(values) | np.uint64(0x80_8080)
    elif out.dtype == _WORDS[8]:
        out[:] = _spread(values) | np.uint64(0x80_8080_8080_8080)
    else:
        out["low"] = _spread(values) | np.uint64(0x8080_8080_8080_8080)
        out["high"] = values >> np.uint64(56) & np.uint64(0x7F) | np.uint64(_MORE)
        out["high"] |= (values >> np.uint64(63) << np.uint64(8)).astype(np.uint16)


def _spread(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # the low 56 bits, 7 to a byte: halves are moved apart, then their halves, then theirs
    for bits, low in _STEPS:
        high = values & np.uint64(low << bits)
        values = (values & np.uint64(low)) | (high << np.uint64(bits // 7))
    return values


# bits of a half, and which of all bits are lower halves; upper ones move by a bit for each 7 bits
_STEPS = ((28, 0x0FFF_FFFF), (14, 0x3FFF_0000_3FFF), (7, 0x7F_007F_007F_007F))
