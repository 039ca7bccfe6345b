"""A site: the place in a function's entry where five bytes can be replaced, or why there is none.

Mirrors the kernel's struct dyn_ftrace. Not here: finding sites (find.py), writing them
(patcher.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

# The length of `jmp rel32` and `call rel32` (SDM Vol. 2, JMP and CALL).
PATCH_SIZE = 5
SHORT_SIZE = 2  # jmp rel8
FARTHEST_BACK, FARTHEST_AHEAD = 128, 127  # its reach, from its end
ORIGINAL_BYTES = 16  # what a site remembers of the text
PAGE_SIZE = 4096


class SiteKind(IntEnum):
    """How the five bytes at a site can be replaced."""

    REFUSED = 0
    NOP = 1  # the compiler left NOPs: nothing has to be kept
    PROLOGUE = 2  # whole instructions are copied elsewhere
    RELOCATED = 3  # the same, and some are written anew for their new address
    SHORT = 4  # the same, of two bytes: a short jump to a hole, where the long one is


class Reason(IntEnum):
    """Why a function has no site; NONE where it has one. Values are stored: only append."""

    NONE = 0
    TOO_SHORT = 1
    PAGE = 2
    BRANCH = 3
    POINTER = 4
    INDIRECT_JUMP = 5
    COLD = 6
    RESTORER = 8
    START = 9
    PLT = 10
    SIZE_UNKNOWN = 11
    VDSO = 12
    CONTROL_FLOW = 13
    SYSTEM_CALL = 14
    RIP_RELATIVE = 15
    NOT_MOVABLE = 16
    INVALID = 17
    NO_BYTES = 18
    FOREIGN = 19
    CALL = 20
    LOOP = 21
    NOT_ANALYSED = 22
    UNLOADED = 23
    RESTARTABLE = 24
    SHARED = 25
    FAR = 26
    GO = 27

    @property
    def text(self) -> str:
        """One line for people."""
        return _TEXT[self]


_TEXT = {
    Reason.NONE: "",
    Reason.TOO_SHORT: "the function is shorter than the bytes to replace",
    Reason.PAGE: "the bytes to replace lie in two pages",
    Reason.BRANCH: "a branch jumps between the bytes to replace",
    Reason.POINTER: "a symbol or a pointer names an address between the bytes to replace",
    Reason.INDIRECT_JUMP: "a computed jump in the function may reach the bytes to replace",
    Reason.COLD: "a part of another function",  # of older files: such are traced by now
    Reason.RESTORER: "returns from signals: the kernel and unwinders know its bytes",
    Reason.START: "the entry point of the file: nobody calls it",
    Reason.PLT: "a linkage stub, not a function",
    Reason.SIZE_UNKNOWN: "neither a symbol nor a frame description says where it ends",
    Reason.VDSO: "the kernel's own code",
    Reason.CONTROL_FLOW: "a branch, call or return lies in the bytes to replace",
    Reason.SYSTEM_CALL: "a system call or interrupt lies in the bytes to replace",
    Reason.RIP_RELATIVE: "an instruction in the bytes to replace refers to its own address",
    Reason.NOT_MOVABLE: "an instruction in the bytes to replace cannot run elsewhere",
    Reason.INVALID: "the bytes to replace are not valid instructions",
    Reason.NO_BYTES: "the file has no bytes there",
    Reason.CALL: "a call returns between the bytes to replace",
    Reason.LOOP: "a loop begins at the entry: each round would count as a call",
    Reason.RESTARTABLE: "the bytes to replace lie in a restartable sequence of the program (rseq)",
    Reason.UNLOADED: "its module is no longer loaded",
    Reason.NOT_ANALYSED: "nobody has asked for this module yet",
    Reason.SHARED: "a shared mapping: its file, and all who map it, would be changed",
    Reason.FAR: "what the bytes to replace refer to, or the code itself, spans more than 2 GiB",
    Reason.GO: "Go code: its runtime enters functions behind their start, and counts stack bytes",
    Reason.FOREIGN: "memory differs from the file: another tool changed it",
}

# entry: vaddr of the function. patch: vaddr of the five bytes, after an endbr64. kind: SiteKind.
# window: bytes of the whole instructions that the five bytes (two of a SHORT site) touch, 0 if
# refused. hole: vaddr of the long jump of a SHORT site, else 0. carrier: 0 where that lies in
# padding, else how many bytes of instructions are moved for it, the first of them five bytes before
# it. filler: what stands there, in the padding or from the first instruction of the carrier.
# reason: Reason. original: the first 16 bytes at patch, zeros past the end of the segment.
# size: bytes of the function. part: it is no function but a part of one, like f.cold: jumps and
# landing pads enter it, in the middle of a call.
SITE_DTYPE = np.dtype(
    [
        ("entry", "<u8"),
        ("patch", "<u8"),
        ("kind", "u1"),
        ("window", "u1"),
        ("reason", "u1"),
        ("original", "V16"),
        ("size", "<u4"),
        ("hole", "<u8"),
        ("filler", "V16"),
        ("carrier", "u1"),
        ("part", "?"),
    ]
)


@dataclass(frozen=True, slots=True)
class ModuleSites:
    """The sites of one image: SITE_DTYPE[n] sorted by entry, a row for every function.

    `blockers` says for a row refused with BRANCH, POINTER or INDIRECT_JUMP what is in the way:
    entry -> the vaddr of the branch, pointed-at byte or jump.
    """

    sites: NDArray[np.void]
    blockers: dict[int, int]

    @property
    def traceable(self) -> NDArray[np.bool_]:
        """Which rows have a site, bool[n]."""
        result: NDArray[np.bool_] = self.sites["kind"] != SiteKind.REFUSED
        return result

    def counts(self) -> dict[Reason, int]:
        """How many functions were refused for which reason, the most frequent first."""
        reasons = self.sites["reason"][~self.traceable]
        values, numbers = np.unique(reasons, return_counts=True)
        order = np.argsort(-numbers, kind="stable")
        return {Reason(int(values[i])): int(numbers[i]) for i in order}

    def why_not(self, entry: int) -> str:
        """One line saying why the function at a vaddr has no site; "" if it has one.

        Raises KeyError if there is no function at this address.
        """
        row = int(np.searchsorted(self.sites["entry"], np.uint64(entry)))
        if row == len(self.sites) or int(self.sites["entry"][row]) != entry:
            raise KeyError(entry)
        reason = reasons_by_value()[int(self.sites["reason"][row])]
        at = f" (0x{self.blockers[entry]:x})" if entry in self.blockers else ""
        return reason.text + at


@cache
def reasons_by_value() -> dict[int, Reason]:
    """Every Reason by the number that SITE_DTYPE stores."""
    return {int(reason): reason for reason in Reason}


def refuse_all(
    entries: NDArray[np.uint64], sizes: NDArray[np.uint64], reason: Reason
) -> ModuleSites:
    """Rows that refuse every function for one reason: the vdso, for example."""
    sites = np.zeros(len(entries), SITE_DTYPE)
    sites["entry"] = sites["patch"] = entries
    sites["size"] = np.minimum(sizes, 2**32 - 1)
    sites["reason"] = reason
    return ModuleSites(sites, {})
