"""What the pads of sites hold: the first instructions of their functions, and behind these, of a
site that has a carrier, the instructions of that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fentry.errors import PatchError
from fentry.sites import pad as pads
from fentry.sites.site import SiteKind
from fentry.sites.table import SiteTable
from fentry.x86.relocate import CannotMove, Moved, relocate


def moved_code(
    table: SiteTable, sites: NDArray[np.int64], addresses: NDArray[np.uint64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The moved instructions of each site whose pad lies at its address: uint8[n, ROOM_BYTES],
    and how many bytes of each row are code.

    Plain windows are copied as they are, others written anew for their place; a NOP site moves
    nothing. Raises PatchError when something that an instruction refers to is out of reach.
    """
    moved = np.zeros((len(sites), pads.ROOM_BYTES), np.uint8)
    moved[:, : table.original.shape[1]] = table.original[sites]
    kinds = table.kind[sites]
    moved_bytes = np.where(kinds == SiteKind.NOP, 0, table.window[sites]).astype(np.int64)
    written_anew = (kinds == SiteKind.RELOCATED) | (kinds == SiteKind.SHORT)
    for i in np.flatnonzero(written_anew).tolist():
        code = _relocated(table, int(sites[i]), int(addresses[i])).code
        moved[i, : len(code)] = np.frombuffer(code, np.uint8)
        moved_bytes[i] = len(code)
    return moved, moved_bytes


def carrier_pads(
    table: SiteTable, sites: NDArray[np.int64], addresses: NDArray[np.uint64]
) -> NDArray[np.uint8]:
    """The moved instructions of the sites' carriers, and jumps back: uint8[n, PAD_BYTES].

    Raises PatchError as moved_code().
    """
    code = np.full((len(sites), pads.PAD_BYTES), 0xCC, np.uint8)
    ends = np.zeros(len(sites), np.int64)
    for i, (site, address) in enumerate(zip(sites.tolist(), addresses.tolist(), strict=True)):
        copy = _carried(table, site, address).code
        code[i, : len(copy)] = np.frombuffer(copy, np.uint8)
        ends[i] = len(copy)
    backs = table.carrier_starts(sites) + table.carrier[sites].astype(np.uint64)
    jumps = pads.branches(pads.JMP, addresses + ends.astype(np.uint64), backs)
    code[np.arange(len(sites))[:, None], ends[:, None] + np.arange(pads.JMP_BYTES)] = jumps
    return code


def place_in_carrier(table: SiteTable, site: int, pad: int, rip: int) -> int:
    """Where the copy, at `pad`, of an instruction of a site's carrier begins.

    Raises PatchError when none begins at `rip`.
    """
    return _place(_carried(table, site, pad), rip)


def place_of_copy(table: SiteTable, site: int, pad: int, rip: int) -> int:
    """Where in the pad the copy of the instruction at `rip`, in the window of a site, begins.

    Raises PatchError when no instruction begins there.
    """
    if table.kind[site] == SiteKind.PROLOGUE:
        return _place_in_pad(table, site, pad) + rip - int(table.patch[site])
    return _place(_relocated(table, site, pad), rip)


def _place(moved: Moved, rip: int) -> int:
    place = moved.places.get(rip)
    if place is None:
        raise PatchError(
            f"a thread stands at {rip:#x}, between two instructions",
            address=rip,
            cause="the program jumps into the middle of its own instructions",
            remedy="leave the function out (-N)",
        )
    return place


def _relocated(table: SiteTable, site: int, pad: int) -> Moved:
    ip, window = int(table.patch[site]), int(table.window[site])
    return _moved(table.original[site, :window].tobytes(), ip, _place_in_pad(table, site, pad))


def _place_in_pad(table: SiteTable, site: int, pad: int) -> int:
    return pad + pads.moved_offset(bool(table.part[site]))


def _carried(table: SiteTable, site: int, pad: int) -> Moved:
    ip = int(table.carrier_starts(np.array([site]))[0])
    return _moved(table.filler[site, : int(table.carrier[site])].tobytes(), ip, pad)


def _moved(code: bytes, ip: int, to: int) -> Moved:
    try:
        return relocate(code, ip, to)
    except CannotMove as error:
        raise PatchError(
            f"cannot move the instructions at {ip:#x}: {error}",
            address=ip,
            cause="code and data of its module lie too far apart",
            remedy="leave the function out (-N)",
        ) from error
