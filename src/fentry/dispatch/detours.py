"""The long jumps of short sites: written before anything leads to them, kept until the detach.

A detour lies in padding, or in room that a carrier makes: then the moved instructions of the
carrier are at the end of the site's pad, and the jump to them is written first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fentry.process.memory import Memory
from fentry.process.target import Halt
from fentry.sites import pad as pads
from fentry.sites.moved import place_in_carrier
from fentry.sites.patcher import (
    SiteMismatchError,
    mismatches,
    poke,
    read_mapped,
    windows_differ,
)
from fentry.sites.table import SiteTable

Rows = NDArray[np.int64]


def taken_by_others(
    memory: Memory, table: SiteTable, sites: Rows, pad: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Where the room for the detour of each site holds neither what the file has nor the jumps
    to its pad, 0 where it has none: bool[n]."""
    there = pad != 0
    filled = np.zeros(len(sites), np.bool_)
    filled[there] = leads_to_pad(memory, table, sites[there], pad[there])
    wrong = ~filled & mismatches(memory, table.hole[sites], table.hole_filler(sites))
    carried = np.flatnonzero((table.carrier[sites] != 0) & ~filled)
    wrong[carried] |= _carrier_differs(memory, table, sites[carried])
    return wrong


def leads_to_pad(
    memory: Memory, table: SiteTable, sites: Rows, pad: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Whether the detour of each site is there, whole, with that of its carrier: bool[n]."""
    jumps = pads.branches(pads.JMP, table.hole[sites], table.pad_entries(sites, pad))
    right = ~mismatches(memory, table.hole[sites], jumps)
    carried = np.flatnonzero(table.carrier[sites] != 0)
    starts = table.carrier_starts(sites[carried])
    copies = pad[carried] + np.uint64(pads.PAD_BYTES)
    right[carried] &= ~mismatches(memory, starts, pads.branches(pads.JMP, starts, copies))
    return right


def fill(halt: Halt, table: SiteTable, sites: Rows, pad: NDArray[np.uint64]) -> None:
    """Write the detours of `sites`, rows of the table whose pads lie at `pad`: uint64[n].

    Those that are there already stay. Threads between the instructions of a carrier go on at the
    copy. Raises SiteMismatchError, SiteWriteError; what was written then does no harm.
    """
    memory = halt.target.memory
    carried = table.carrier[sites] != 0
    _move_carriers(halt, table, sites[carried], pad[carried] + np.uint64(pads.PAD_BYTES))
    holes = table.hole[sites]
    wanted = pads.branches(pads.JMP, holes, table.pad_entries(sites, pad))
    found, _ = read_mapped(memory, holes)
    there = (found == wanted).all(axis=1)[:, None]
    poke(memory, holes, np.where(there, wanted, table.hole_filler(sites)), wanted)


def _move_carriers(halt: Halt, table: SiteTable, sites: Rows, copies: NDArray[np.uint64]) -> None:
    memory, starts = halt.target.memory, table.carrier_starts(sites)
    wanted = pads.branches(pads.JMP, starts, copies)
    found, _ = read_mapped(memory, starts)
    fresh = np.flatnonzero((found != wanted).any(axis=1))
    if not len(fresh):
        return
    wrong = _carrier_differs(memory, table, sites[fresh])
    if wrong.any():
        address = int(starts[fresh[wrong][0]])
        raise SiteMismatchError(
            f"cannot make room at {address:#x}: its bytes are no longer those of the file",
            address=address,
            cause="another tool changed the text, or a module was replaced",
            remedy="fentry doctor lists who else is there",
        )
    moves: dict[int, int] = {}
    for rip in set(halt.rips()):
        for number in fresh.tolist():
            start, window = int(starts[number]), int(table.carrier[sites[number]])
            if start < rip < start + window:
                moves[rip] = place_in_carrier(table, int(sites[number]), int(copies[number]), rip)
    if moves:
        halt.move(moves)
    poke(memory, starts[fresh], found[fresh], wanted[fresh])


def _carrier_differs(memory: Memory, table: SiteTable, sites: Rows) -> NDArray[np.bool_]:
    sizes = table.carrier[sites].astype(np.int64)
    return windows_differ(memory, table.carrier_starts(sites), table.filler[sites], sizes)
