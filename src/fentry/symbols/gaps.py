"""Code that nobody names or describes: what a list of functions cannot hold."""

from __future__ import annotations

import numpy as np

from fentry.symbols.elf import ElfImage

LEAST_BYTES = 64
"""What is shorter is padding between functions, more likely than not."""


def unknown_code(image: ElfImage) -> tuple[int, int]:
    """(bytes in gaps of LEAST_BYTES and more between functions, bytes of code) of an image.

    A function lasts to the end that its symbol, or its frame description, tells; linkage stubs
    are described by one frame, or lie in the gaps, as data in the text does.
    """
    rows = image.functions.rows
    starts = np.concatenate([rows["vaddr"], image.frames["start"]]).astype(np.int64)
    sizes = np.concatenate([rows["size"], image.frames["size"]]).astype(np.int64)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate((starts + sizes)[order])
    unknown = total = 0
    for segment in image.executable:
        low, high = segment.vaddr, segment.vaddr + segment.file_size
        inside = (starts < high) & (ends > low)
        begins = np.concatenate([starts[inside].clip(low), [high]])
        reached = np.concatenate([[low], ends[inside].clip(max=high)])
        gaps = begins - reached
        unknown += int(gaps[gaps >= LEAST_BYTES].sum())
        total += high - low
    return unknown, total
