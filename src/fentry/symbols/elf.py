"""One x86-64 ELF image with what is found in it: functions, frames, pointers to code.

Each is found when first asked for. Not here: headers, sections and bytes (elf_file.py), where it is
mapped (module.py).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fentry.symbols.elf_file import ElfFile
from fentry.symbols.frames import frame_ranges
from fentry.symbols.functions import Functions, function_table
from fentry.symbols.landing_pads import LandingPads, find_landing_pads
from fentry.symbols.relocations import (
    code_pointers,
    irelative_slots,
    restartable_sequences,
    symbol_slots,
)


class ElfImage(ElfFile):
    """An ELF file, or what a target's memory holds of one: see ElfFile. Its properties raise
    BadInput where it is damaged."""

    @cached_property
    def frames(self) -> NDArray[np.void]:
        """The ranges of .eh_frame, frames.FRAME_DTYPE[n], sorted by start."""
        return frame_ranges(self)

    @cached_property
    def landing_pads(self) -> LandingPads:
        """Where the unwinder enters functions and parts of them: landing_pads.py."""
        return find_landing_pads(self, self.frames)

    @cached_property
    def functions(self) -> Functions:
        """Every function of the image, one row an address."""
        return function_table(self, self.frames)

    @cached_property
    def code_pointers(self) -> NDArray[np.uint64]:
        """Addresses of code that relocations or headers name, uint64[n], sorted, no repeats."""
        return code_pointers(self)

    @cached_property
    def restartable(self) -> list[range]:
        """The addresses of each restartable sequence of the program: rseq(2)."""
        return restartable_sequences(self, self.code_pointers)

    @cached_property
    def irelative(self) -> list[tuple[int, int]]:
        """(vaddr of a slot, vaddr of the resolver whose answer it gets)."""
        return irelative_slots(self)

    @cached_property
    def symbol_slots(self) -> list[tuple[int, str]]:
        """(vaddr of a slot, the symbol whose address it gets)."""
        return symbol_slots(self)
