"""What the text of the target is now, what it is to become, and the bytes that say so.

A site in mode NONE holds what the file has; DIRECT, a call of a trampoline; PADDED, a jump to its
pad, which calls the trampoline.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.list import Update
from fentry.sites import pad as pads
from fentry.sites.patcher import POKE_BYTES
from fentry.sites.site import SHORT_SIZE
from fentry.sites.table import SiteTable
from fentry.x86.code import Code

NONE, DIRECT, PADDED = 0, 1, 2

NOP5 = bytes.fromhex("0f1f440000")  # nop dword [rax + rax]

Set = tuple[int, ...]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trampoline:
    """Generated code of one set in one arena, and its row in the registry; `section` is where its
    rseq descriptor lies, or the cell of a list, 0 for neither. `bytes` is 0 where it is the code
    of a DIRECT ops, whose memory that has."""

    set: Set
    arena: int
    address: int
    bytes: int
    row: int
    section: int


@dataclass(slots=True)
class Text:
    """The present of all sites, a row each as in the site table.

    `mode` as above, uint8[n]; `call` what it or its pad calls, `pad` its pad or 0, uint64[n];
    `row` its row in the registry or -1, int64[n]; `modified` whether it ever had an ops that could
    change what it does, bool[n].
    """

    mode: NDArray[np.uint8]
    call: NDArray[np.uint64]
    pad: NDArray[np.uint64]
    row: Rows
    modified: NDArray[np.bool_]

    @classmethod
    def untouched(cls, n: int) -> Text:
        """That of `n` sites before anything is traced."""
        return cls(
            np.zeros(n, np.uint8), np.zeros(n, np.uint64), np.zeros(n, np.uint64),
            np.full(n, -1, np.int64), np.zeros(n, np.bool_),
        )  # fmt: skip


@dataclass(slots=True)
class Change:
    """One transaction: `sites` are rows of the table, the others what becomes of each.

    `built` are the trampolines that are new, `fresh_pads` (address, bytes) of pads in one piece,
    `has_fresh_pad` whose those are; `gone` are sites whose module was found to be unloaded;
    `list` is the next version of the list of ops, if it changes; `modified` as of Text.
    """

    sites: Rows
    mode: NDArray[np.uint8]
    call: NDArray[np.uint64]
    trampoline: NDArray[np.uint32]
    built: list[tuple[Trampoline, Code]] = field(default_factory=list)
    fresh_pads: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)
    fresh_rows: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    has_fresh_pad: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    gone: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    list: Update | None = None
    modified: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))


def bytes_of(
    table: SiteTable, text: Text, sites: Rows, mode: NDArray[np.uint8], call: NDArray[np.uint64]
) -> NDArray[np.uint8]:
    """The five bytes of each site in a mode: uint8[n, 5]."""
    found = table.original[sites, :POKE_BYTES].copy()
    patch = table.patch[sites]
    direct, padded = mode == DIRECT, mode == PADDED
    found[direct] = pads.branches(pads.CALL, patch[direct], call[direct])
    jumps = table.pad_entries(sites[padded], text.pad[sites[padded]])
    short = table.hole[sites] != 0
    long = padded & ~short
    found[long] = pads.branches(pads.JMP, patch[long], jumps[long[padded]])
    short &= padded
    found[short, :SHORT_SIZE] = pads.short_jumps(patch[short], table.hole[sites[short]])
    return found


def keys_of(
    table: SiteTable, text: Text, sites: Rows, mode: NDArray[np.uint8]
) -> NDArray[np.uint32]:
    """The key of each site in a mode, the low half of where its call returns to: uint32[n]."""
    returns = np.where(
        mode == PADDED,
        text.pad[sites] + np.uint64(pads.RETURN_OFFSET),
        table.patch[sites] + np.uint64(POKE_BYTES),
    )
    return (returns & np.uint64(0xFFFFFFFF)).astype(np.uint32)
