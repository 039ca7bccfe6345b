"""Every byte that one transaction compares and writes, made before the stop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.change import DIRECT, NONE, NOP5, PADDED, Change, Rows, Text, bytes_of, keys_of
from fentry.process.memory import Memory
from fentry.process.target import Halt
from fentry.region.layout import SITE_DTYPE, SiteFlag, SiteState
from fentry.region.registry import Registry
from fentry.sites import pad as pads
from fentry.sites.moved import place_of_copy
from fentry.sites.patcher import POKE_BYTES, Changes, Expected, SiteMismatchError, differ
from fentry.sites.site import SiteKind
from fentry.sites.table import SiteTable

_PAD_RUN_GAP = 4096
_MOST_VERIFIED = 2000
_MOST_AT_ONCE = 128
_NOP5 = np.frombuffer(NOP5, np.uint8)


class Writes:
    """What a change writes. To be made anew when the change is altered."""

    def __init__(self, table: SiteTable, text: Text, change: Change) -> None:
        sites = change.sites
        self._table, self._text, self._change = table, text, change
        self._adding = change.mode != NONE
        self._called = np.flatnonzero(text.mode[sites] != NONE)
        self._originals = _originals(table, sites[self._called])
        self._entering = sites[self._adding & (text.mode[sites] == NONE)]
        self._windows = windows(table, self._entering[:_MOST_VERIFIED])
        one_nop = (table.original[self._entering, :POKE_BYTES] == _NOP5).all(axis=1)
        self._divided = self._entering[~one_nop]  # a thread may stand in the middle
        was_padded = text.mode[sites] == PADDED
        idle = (change.mode == PADDED) & ~was_padded & ~change.has_fresh_pad
        self._rows = {adding: self._site_rows(self._adding == adding) for adding in (True, False)}
        self._idle_calls = _PadCalls(text, change, idle)
        self._used_calls = _PadCalls(text, change, was_padded)
        self._pads_left = self._leaving_pads()
        self._pokes = self._changes()

    # -- made before the stop --------------------------------------------------------------------

    def _site_rows(self, which: NDArray[np.bool_]) -> list[tuple[int, NDArray[np.void]]]:
        # Rows of the registry, in pieces that lie side by side: (number of the first, rows).
        table, text, change = self._table, self._text, self._change
        chosen = np.flatnonzero(which & (text.row[change.sites] >= 0))
        chosen = chosen[np.argsort(text.row[change.sites[chosen]], kind="stable")]
        sites = change.sites[chosen]
        rows = np.zeros(len(sites), SITE_DTYPE)
        for name in ("ip", "patch", "kind", "window", "hole", "carrier", "part"):
            rows[name] = getattr(table, name)[sites]
        rows["original"] = table.original[sites].view("V16").ravel()
        rows["filler"] = table.filler[sites].view("V16").ravel()
        rows["pad"] = text.pad[sites]
        rows["call"] = change.call[chosen]
        mode = np.where(change.mode[chosen] != NONE, change.mode[chosen], text.mode[sites])
        rows["key"] = keys_of(table, text, sites, mode)  # of records that nobody has read yet
        rows["counter"] = text.row[sites]
        rows["state"] = np.where(change.mode[chosen] != NONE, SiteState.CALL, SiteState.NOP)
        rows["trampoline"] = change.trampoline[chosen]
        rows["flags"] = np.where(change.modified[chosen], SiteFlag.MODIFIED, SiteFlag.NONE)
        numbers = text.row[sites]
        pieces = np.split(rows, np.flatnonzero(np.diff(numbers) != 1) + 1) if len(rows) else []
        return [(int(piece["counter"][0]), piece) for piece in pieces]

    def _changes(self) -> Changes:
        table, text, change = self._table, self._text, self._change
        sites = change.sites
        now = bytes_of(table, text, sites, text.mode[sites], text.call[sites])
        wanted = bytes_of(table, text, sites, change.mode, change.call)
        widths = table.poke_bytes(sites)
        new = np.flatnonzero(differ(now, wanted, widths))
        return Changes(table.patch[sites[new]], now[new], wanted[new], widths[new])

    def _leaving_pads(self) -> dict[int, int]:
        # Who has jumped to a pad that will call nothing, and has not called yet, jumps again.
        text, change = self._text, self._change
        left = change.sites[(text.mode[change.sites] == PADDED) & (change.mode == DIRECT)]
        calls = text.pad[left] + np.uint64(pads.CALL_OFFSET)
        return dict(zip(calls.tolist(), self._table.patch[left].tolist(), strict=True))

    def pieces(self) -> list[tuple[int, bytes]] | None:
        """All text that gone(), verify_windows() and write_text() look at, (address, bytes) each,
        as it is when none of them finds anything; None for many sites."""
        if len(self._change.sites) > _MOST_AT_ONCE:
            return None
        table, text = self._table, self._text
        called = self._change.sites[self._called]
        now = bytes_of(table, text, called, text.mode[called], text.call[called])
        return [
            (int(address), found.tobytes()[:size])
            for sites, bytes_there, sizes in (
                (called, now, table.poke_bytes(called)),
                (self._entering, table.original[self._entering], self._windows.sizes),
            )
            for address, found, size in zip(
                table.patch[sites].tolist(), bytes_there, sizes.tolist(), strict=True
            )
        ]

    # -- inside the stop -------------------------------------------------------------------------

    def gone(self, memory: Memory) -> Rows:
        """Which sites, numbers in the change, have lost their module: it was unloaded, or unloaded
        and loaded again, so that their text is not mapped, or is the original. What anybody else
        wrote is not taken for gone: it may come back."""
        same, mapped = self._originals.look(memory)
        gone: Rows = self._called[~mapped | same]
        return gone

    def verify_windows(self, memory: Memory) -> None:
        """What was moved is what stands there: of sites that are patched from now on, all bytes of
        the window, not only those that are replaced.

        Of very many that would make the stop longer by a quarter: they were compared before it,
        and what was loaded since is told by the linker's list. Raises SiteMismatchError.
        """
        same, _ = self._windows.look(memory)
        if not same.all():
            address = int(self._windows.addresses[~same][0])
            raise SiteMismatchError(
                f"cannot patch site {address:#x}: its bytes are no longer those of the file",
                address=address,
                cause="another tool changed the text, or a module was replaced",
                remedy="fentry doctor lists who else is there",
            )

    def write_rows(self, registry: Registry, *, adding: bool) -> None:
        """The rows of sites that call something from now on, or of those that do not any more."""
        for first, rows in self._rows[adding]:
            registry.write_sites(first, rows)

    def write_pad_calls(self, memory: Memory, *, idle: bool) -> None:
        """What pads call from now on, or nothing: idle ones before their site jumps to them, those
        in use after the text."""
        (self._idle_calls if idle else self._used_calls).write(memory)

    def leave_windows(self, halt: Halt) -> None:
        """Move threads and interrupted contexts out of bytes that will be replaced."""
        moves = dict(self._pads_left)
        if len(self._divided):
            moves |= self._moves(halt)
        if moves:
            halt.move(moves)

    def _moves(self, halt: Halt) -> dict[int, int]:
        table = self._table
        by_start = self._divided[np.argsort(table.patch[self._divided])]
        starts = table.patch[by_start]
        moves: dict[int, int] = {}
        for rip in set(halt.rips()):
            i = int(np.searchsorted(starts, np.uint64(rip), side="right")) - 1
            if i < 0:
                continue
            inside = rip - int(starts[i])
            site = by_start[i]
            if not 0 < inside < int(table.poke_bytes(site)):
                continue
            if table.kind[site] == SiteKind.NOP:
                moves[rip] = int(starts[i]) + POKE_BYTES  # the rest were NOPs
            else:
                moves[rip] = place_of_copy(table, int(site), int(self._text.pad[site]), rip)
        return moves

    def write_text(self, memory: Memory, *, verified: bool) -> None:
        """Replace the bytes of the sites. Raises as Changes.write."""
        self._pokes.write(memory, verified=verified)


def windows(table: SiteTable, sites: Rows) -> Expected:
    """What the sites hold while nothing is patched, as far as it is moved."""
    sizes = np.maximum(table.window[sites].astype(np.int64), table.poke_bytes(sites))
    return Expected(table.patch[sites], table.original[sites], sizes)


def _originals(table: SiteTable, sites: Rows) -> Expected:
    """What the sites hold while nothing is patched, as far as it is replaced."""
    return Expected(table.patch[sites], table.original[sites], table.poke_bytes(sites))


class _PadCalls:
    # The five bytes at the call of some pads. Pads lie side by side: a run of them is read and
    # written at once.
    def __init__(self, text: Text, change: Change, which: NDArray[np.bool_]) -> None:
        chosen = np.flatnonzero(which)
        chosen = chosen[np.argsort(text.pad[change.sites[chosen]])]
        at = text.pad[change.sites[chosen]]
        kept = change.mode[chosen] == PADDED
        calls = at + np.uint64(pads.CALL_OFFSET)
        code = np.tile(np.frombuffer(NOP5, np.uint8), (len(at), 1))
        code[kept] = pads.branches(pads.CALL, calls[kept], change.call[chosen[kept]])
        self._runs: list[tuple[int, int, NDArray[np.int64], NDArray[np.uint8]]] = []
        breaks = np.flatnonzero(np.diff(at) > _PAD_RUN_GAP) + 1
        for run in np.split(np.arange(len(at)), breaks) if len(at) else ():
            start, end = int(at[run[0]]), int(at[run[-1]]) + pads.PAD_BYTES
            offsets = (calls[run] - np.uint64(start)).astype(np.int64)
            places = (offsets[:, None] + np.arange(POKE_BYTES)).ravel()
            self._runs.append((start, end - start, places, code[run].ravel()))

    def write(self, memory: Memory) -> None:
        for start, size, places, code in self._runs:
            text = np.frombuffer(memory.read(start, size), np.uint8).copy()
            text[places] = code
            memory.write(start, text.tobytes())
