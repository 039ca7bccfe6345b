"""What another controller left: whose place it is, which of its ops go on, and of the sites what
its rows and the text say."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.change import DIRECT, PADDED, Rows, Text
from fentry.dispatch.ops import Callback
from fentry.errors import LockError
from fentry.process.memory import Memory
from fentry.region.layout import Kind, State
from fentry.region.owners import Owner
from fentry.region.region import Region
from fentry.sites import pad as pads
from fentry.sites.patcher import POKE_BYTES, read_mapped
from fentry.sites.site import Reason
from fentry.sites.table import SiteTable


def dead_owner(pid: int, region: Region) -> Owner | None:
    """Whose place is taken by who adopts: one that recorded rather than one that counted or did
    nothing yet; None where there never was one. Raises LockError when every one of them lives."""
    every = region.owners.every
    dead = [one for one in every if not one.is_alive]
    if every and not dead:
        raise LockError(
            f"process {pid} is traced by another fentry",
            cause=f"{every[0].text} is recording it",
            remedy=f"fentry status -p {pid}; fentry detach -p {pid}",
        )
    rows = region.registry.ops
    rows = rows[rows["state"] == State.LIVE]

    def worth(one: Owner) -> tuple[bool, bool]:
        own = rows[rows["owner"] == one.number]
        return bool((own["callback"] == Callback.RECORD).any()), bool(len(own))

    return max(dead, key=worth, default=None)


def rows_in_force(rows: NDArray[np.void], functions: Set[int]) -> tuple[list[int], list[int]]:
    """Numbers of the rows of ops that go on, and of those that are over: their controller died
    before they were complete, or when others had taken their place. `functions` are the ids of ops
    whose C function or direct code is there."""
    live = rows["state"] == State.LIVE
    replaced = np.isin(rows["id"], rows["replaces"][live & (rows["replaces"] != 0)])
    without = np.isin(rows["callback"], (Callback.CALL, Callback.DIRECT)) & ~np.isin(
        rows["id"], np.array(list(functions), np.uint32)
    )
    over = live & (replaced | without)
    return np.flatnonzero(live & ~over).tolist(), np.flatnonzero(over).tolist()


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
    for name in ("kind", "window", "hole", "carrier", "part"):
        alike &= rows[name] == getattr(table, name)[sites]
    ours = lead_to_us(memory, region, rows)
    unloaded = table.reason[sites] == Reason.UNLOADED
    result: NDArray[np.bool_] = table.from_memory[sites] | (same & (alike | ours | unloaded))
    return result


def lead_to_us(memory: Memory, region: Region, rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether the text of each row of the registry is a call or jump into our code: bool[n]."""
    places = np.where(rows["hole"] != 0, rows["hole"], rows["patch"]).astype(np.uint64)
    found, mapped = read_mapped(memory, places)
    branches = np.isin(found[:, 0], (pads.CALL, pads.JMP))
    result: NDArray[np.bool_] = mapped & branches & _leads_to_us(region, places, found)
    return result


def called_by(memory: Memory, rows: NDArray[np.void]) -> set[int]:
    """What sites call whose text leads to us, by their rows and by what stands there: addresses."""
    called = {int(one) for one in rows["call"]}
    found, _ = read_mapped(memory, rows["patch"].astype(np.uint64))
    for row, text in zip(rows, found, strict=True):
        place, piece = int(row["patch"]), text.tobytes()
        if piece[0] != pads.CALL and row["pad"]:
            place = int(row["pad"]) + pads.CALL_OFFSET
            piece = memory.read_some(place, POKE_BYTES)
        if piece[:1] == bytes([pads.CALL]):
            called.add(place + POKE_BYTES + int.from_bytes(piece[1:], "little", signed=True))
    return called


def believe(table: SiteTable, sites: Rows, rows: NDArray[np.void]) -> None:
    """Put into the table what rows of the registry say was there: a module that is read from
    memory shows what we wrote over it."""
    for name in ("patch", "window", "kind", "hole", "carrier", "part"):
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
