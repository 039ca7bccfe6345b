"""What another controller left of the sites: told by its rows, and by what the text says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.change import DIRECT, PADDED, Rows, Text
from fentry.process.memory import Memory
from fentry.region.layout import Kind
from fentry.region.region import Region
from fentry.sites import pad as pads
from fentry.sites.patcher import POKE_BYTES, read_mapped
from fentry.sites.site import Reason
from fentry.sites.table import SiteTable


def is_of_now(
    memory: Memory, region: Region, table: SiteTable, sites: Rows, rows: NDArray[np.void]
) -> NDArray[np.bool_]:
    """Whether each row of the registry tells of the function that is there now: bool[n].

    Else its module is gone, and another may lie there by now, perhaps one with the same first
    bytes. Where our jumps are, the row tells more than any analysis; and a module that was read
    from memory shows what we wrote over it.
    """
    original, filler = (
        np.ascontiguousarray(rows[name]).view(np.uint8).reshape(-1, 16)
        for name in ("original", "filler")
    )
    same = (original == table.original[sites]).all(axis=1)
    alike = (filler == table.filler[sites]).all(axis=1)
    for name in ("kind", "window", "hole", "carrier"):
        alike &= rows[name] == getattr(table, name)[sites]
    places = np.where(rows["hole"] != 0, rows["hole"], rows["patch"]).astype(np.uint64)
    found, mapped = read_mapped(memory, places)
    ours = (
        mapped & np.isin(found[:, 0], (pads.CALL, pads.JMP)) & _leads_to_us(region, places, found)
    )
    unloaded = table.reason[sites] == Reason.UNLOADED
    result: NDArray[np.bool_] = table.from_memory[sites] | (same & (alike | ours | unloaded))
    return result


def believe(table: SiteTable, sites: Rows, rows: NDArray[np.void]) -> None:
    """Put into the table what rows of the registry say was there: a module that is read from
    memory shows what we wrote over it."""
    for name in ("patch", "window", "kind", "hole", "carrier"):
        getattr(table, name)[sites] = rows[name]
    table.reason[sites] = Reason.NONE
    for name in ("original", "filler"):
        kept = np.ascontiguousarray(rows[name]).view(np.uint8).reshape(-1, 16)
        getattr(table, name)[sites] = kept


def take_call(memory: Memory, table: SiteTable, text: Text, site: int, found: bytes) -> int | None:
    """Note the mode of a site and what it calls, by the five bytes that stand there; its address.

    What the text says counts: its controller may have died between text and rows. None where the
    bytes are somebody else's; 0 where the pad calls nothing.
    """
    short = found[0] == pads.SHORT_JMP and table.hole[site] != 0
    if found[0] not in (pads.CALL, pads.JMP) and not short:
        return None
    text.mode[site] = DIRECT if found[0] == pads.CALL else PADDED
    address = int(table.patch[site])
    if text.mode[site] == PADDED:
        address = int(text.pad[site]) + pads.CALL_OFFSET
        found = memory.read(address, POKE_BYTES)
    called = address + POKE_BYTES + int.from_bytes(found[1:], "little", signed=True)
    text.call[site] = called
    return called if found[0] == pads.CALL else 0


def _leads_to_us(
    region: Region, places: NDArray[np.uint64], found: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    # Whether five bytes at each place are a distance into our code, behind an opcode.
    distance = np.ascontiguousarray(found[:, 1:]).view("<i4").ravel().astype(np.int64)
    target = places.astype(np.int64) + POKE_BYTES + distance
    inside = np.zeros(len(places), np.bool_)
    for segment in region.of_kind(Kind.CODE):
        inside |= (target >= segment.address) & (target < segment.end)
    return inside
