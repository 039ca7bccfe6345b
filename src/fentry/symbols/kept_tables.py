"""The tables of a file that every attach needs - functions, their names, slots - from the cache.

A file here is a header of counts and then columns, little-endian, as the types below have them;
names are UTF-8, each with a zero byte behind it, as in the string tables they come from.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from fentry.errors import BadInput
from fentry.symbols.elf import ElfImage
from fentry.symbols.functions import FUNCTION_DTYPE, Functions
from fentry.symbols.keep import kept, store

TABLES_VERSION = 1

# (row, what it is also called), (vaddr of a slot, symbol), (vaddr of a slot, vaddr of a resolver)
_COLUMNS: tuple[tuple[str, np.dtype[Any]], ...] = (
    ("rows", FUNCTION_DTYPE),
    ("labels", np.dtype("<u8")),
    ("alias_rows", np.dtype("<u4")),
    ("slots", np.dtype("<u8")),
    ("irelative", np.dtype([("slot", "<u8"), ("resolver", "<u8")])),
)
_TEXTS = ("names", "aliases", "slot_names")
_HEADER = struct.Struct(f"<{len(_COLUMNS) + len(_TEXTS)}Q")


def fill(image: ElfImage) -> None:
    """Give an image its functions and slots: from the cache, else found now and kept there.

    An image without a build-id, or a damaged one, finds its own when they are asked for.
    """
    if not image.build_id or image.memory_bias is not None:
        return
    try:
        name = f"{image.build_id}-{image.size}-{_checksum(image):08x}-v{TABLES_VERSION}.symbols"
        body = kept(name)
        if body is None:
            store(name, _packed(image))
        else:
            _unpack(image, body)
    except BadInput:
        return  # whoever asks is told


def _checksum(image: ElfImage) -> int:
    # Of all symbol tables: debug files come and go, and strip leaves the build-id.
    found = 0
    for array in image.symbol_arrays:
        found = zlib.crc32(array.symbols.tobytes(), found)
        found = zlib.crc32(array.strings, found)
    return found


def _packed(image: ElfImage) -> bytes:
    functions = image.functions
    aliases = [(row, name) for row, names in functions.aliases.items() for name in names]
    columns = {
        "rows": functions.rows,
        "labels": functions.labels,
        "alias_rows": [row for row, _ in aliases],
        "slots": [slot for slot, _ in image.symbol_slots],
        "irelative": image.irelative,
    }
    texts = {
        "names": functions.own_names,
        "aliases": [name for _, name in aliases],
        "slot_names": [name for _, name in image.symbol_slots],
    }
    parts = [np.array(columns[name], dtype).tobytes() for name, dtype in _COLUMNS]
    parts += [_joined(texts[name]) for name in _TEXTS]
    return _HEADER.pack(*map(len, parts)) + b"".join(parts)


def _unpack(image: ElfImage, body: memoryview) -> None:
    sizes = _HEADER.unpack_from(body)
    bounds = list(pairwise(accumulate(sizes, initial=_HEADER.size)))
    columns = {
        name: np.frombuffer(body[start:end], dtype)
        for (name, dtype), (start, end) in zip(_COLUMNS, bounds, strict=False)
    }
    names, other_names, slot_names = (body[start:end] for start, end in bounds[-len(_TEXTS) :])
    aliases: dict[int, list[str]] = {}
    for row, name in zip(columns["alias_rows"].tolist(), _split(other_names), strict=True):
        aliases.setdefault(row, []).append(name)
    image.functions = Functions(
        columns["rows"], lambda: _split(names), image.name, image.low, aliases, columns["labels"]
    )
    image.symbol_slots = list(zip(columns["slots"].tolist(), _split(slot_names), strict=True))
    image.irelative = columns["irelative"].tolist()


def _joined(names: Iterable[str]) -> bytes:
    return "".join(f"{name}\0" for name in names).encode("utf-8", "surrogateescape")


def _split(raw: memoryview) -> list[str]:
    text = bytes(raw).decode("utf-8", "surrogateescape")
    return text.split("\0")[:-1]
