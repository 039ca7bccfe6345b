"""Where code of the Go compiler lies in an image; its linker brackets it by two symbols.

Why it is told from other code: docs/design/sites.md.
"""

from __future__ import annotations

import numpy as np

from fentry.symbols.elf_file import ElfFile

_FIRST, _END = b"runtime.text\0", b"runtime.etext\0"


def go_code(image: ElfFile) -> list[range]:
    """The vaddrs of the Go code of an image; [] where it has none, or no symbol that says where.

    Without these symbols there is none of any function of Go either: nobody describes its frames.
    """
    starts, ends = _values(image, _FIRST), _values(image, _END)
    return [range(min(starts), max(ends))] if starts and ends else []


def _values(image: ElfFile, name: bytes) -> list[int]:
    # A linker may keep a name as the end of a longer one.
    found: list[int] = []
    for array in image.symbol_arrays:
        at = array.strings.find(name)
        while at >= 0:
            found += array.symbols["value"][array.symbols["name"] == np.uint32(at)].tolist()
            at = array.strings.find(name, at + 1)
    return [value for value in found if value]
