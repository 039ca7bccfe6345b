"""What the pads of sites hold of their functions: the first instructions, moved there."""

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


def place_of_copy(table: SiteTable, site: int, pad: int, rip: int) -> int:
    """Where in the pad the copy of the instruction at `rip`, in the window of a site, begins.

    Raises PatchError when no instruction begins there.
    """
    if table.kind[site] == SiteKind.PROLOGUE:
        return pad + pads.RETURN_OFFSET + rip - int(table.patch[site])
    place = _relocated(table, site, pad).places.get(rip)
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
    try:
        return relocate(table.original[site, :window].tobytes(), ip, pad + pads.RETURN_OFFSET)
    except CannotMove as error:
        raise PatchError(
            f"cannot move the instructions at {ip:#x}: {error}",
            address=ip,
            cause="code and data of its module lie too far apart",
            remedy="leave the function out (-N)",
        ) from error
