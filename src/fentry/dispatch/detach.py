"""Undoing everything from the registry alone: what `fentry detach` does, whoever attached.

Recovery rule (docs/design/region.md): the text of a site is the original, or a call or jump of
ours into a code segment.  The original goes back; anything else is left alone and named.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.natives import functions_run
from fentry.dispatch.permanent import permanent_rows, refuse_others_permanent
from fentry.errors import FentryError, PatchError, RegionError
from fentry.process.maps import Mapping, mapping_at, read_maps
from fentry.process.memory import PAGE_BYTES
from fentry.process.remote import RemoteError, rooms_in_files
from fentry.process.target import Halt, Target
from fentry.region.layout import Kind, SiteState
from fentry.region.region import Region, give_back, remove_orphans
from fentry.region.registry import Rows, UnfinishedRegistry, find_registry
from fentry.sites.pad import CALL, JMP, PAD_BYTES, SHORT_JMP, entries
from fentry.sites.pages import private_runs
from fentry.sites.patcher import POKE_BYTES, differ, poke, read_mapped
from fentry.sites.site import SHORT_SIZE
from fentry.sites.table import hole_filler

REMOVE_LIMIT_S = 5.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.25


@dataclass(frozen=True, slots=True)
class Restored:
    """Sites put back, sites that somebody else changed (left alone), sites no longer mapped."""

    restored: int
    foreign: tuple[int, ...]
    unmapped: int


@dataclass(frozen=True, slots=True)
class Undone:
    """What a detach came to: `found` is "" where nothing of fentry was there, "unfinished" for
    what a controller left that died while attaching, else "region"; bytes that stay parked."""

    found: str = ""
    restored: int = 0
    foreign: tuple[int, ...] = ()
    parked_bytes: int = 0


def undo(
    target: Target,
    *,
    from_living: bool,
    force: bool = False,
    between: Callable[[], None] | None = None,
) -> Undone:
    """Restore the text and unmap whatever region the process has, whoever made it.

    `between` is called when the text is restored and the region is still there, to look after
    children by it: who dies meanwhile leaves what tells of them.  What is there is decided inside
    the stop, where nobody else changes it.  Unless `from_living`, nothing is done where a
    controller lives that is at work here, or PERMANENT ops are.  Raises LockError when the region
    holds PERMANENT ops, unless with `force` and their owner is gone; RegionError when it is
    damaged.
    """
    if find_registry(read_maps(target.pid)) is None:
        return Undone()
    with target.stopped(bounded=False) as halt:
        try:
            region = Region.open(target.memory, halt.maps)
        except UnfinishedRegistry:
            remove_orphans(halt.remote, halt.maps)
            return Undone("unfinished")
        if region is None:
            return Undone()
        inherited = region.registry.is_inherited() and not region.is_followed
        if not from_living and not inherited and is_in_use(region):
            return Undone()
        refuse_others_permanent(target.pid, region, force=force)
        restored = restore_text(halt, region)
    if between is not None:
        between()
    parked_bytes = remove_region(target, region)
    return Undone("region", restored.restored, restored.foreign, parked_bytes)


def is_in_use(region: Region) -> bool:
    """Whether who comes joins a region in place of clearing it away: a controller lives that is at
    work in it, or PERMANENT ops go on there."""
    return bool(region.owners.living or len(permanent_rows(region)))


def restore_text(halt: Halt, region: Region) -> Restored:
    """Every site is the original again, and the registry says so."""
    region.registry.begin_change()
    every = region.registry.sites
    sites = every[every["state"] != SiteState.GONE]
    patch = _patches(sites)
    # Whatever permissions the text has by now: a program may have made it writable.
    found, mapped = read_mapped(halt.target.memory, patch)
    original = _original(sites)
    widths = _widths(sites)
    changed = mapped & differ(found, original, widths)
    ours = changed & _is_ours(region, sites, found)
    poke(halt.target.memory, patch[ours], found[ours], original[ours], widths[ours])
    strange = np.flatnonzero(changed & ~ours)  # few: the rest need no second look
    kept = strange[_resembles(sites[strange], found[strange])]
    left = _restore_detours(halt, np.delete(sites, kept) if len(kept) else sites)
    every["state"][every["state"] != SiteState.GONE] = SiteState.NOP
    region.registry.write_sites(0, every)
    region.registry.end_change()
    region.owners.disown()
    foreign = tuple(int(ip) for ip in (*sites["ip"][changed & ~ours], *left))
    return Restored(int(ours.sum()), foreign, int((~mapped).sum()))


def _restore_detours(halt: Halt, sites: Rows) -> list[int]:
    """Put back what held long jumps that nothing leads to any more; the ips of those where
    somebody else's bytes are.

    Who has just come there by a short jump begins again. What is behind the jump of a carrier
    must be right before it is taken away: it is the program's code again then.
    """
    memory = halt.target.memory
    short = sites[sites["hole"] != 0]
    holes, filler = _holes(short)
    jumps = _jumps(holes, _pad_entries(short))
    found, mapped = read_mapped(memory, holes)
    ours = mapped & (found == jumps).all(axis=1)
    back = dict(zip(holes[ours].tolist(), short["patch"][ours].tolist(), strict=True))
    if not back.keys().isdisjoint(halt.rips()):
        halt.move(back)
    poke(memory, holes[ours], found[ours], filler[ours])
    right = ours | (mapped & (found == filler).all(axis=1))
    carried = right & (short["carrier"] != 0)
    starts, instructions = _carriers(short[carried])
    found, there = read_mapped(memory, starts)
    copies = short["pad"][carried] + np.uint64(PAD_BYTES)
    own = there & (found == _jumps(starts, copies)).all(axis=1)
    poke(memory, starts[own], found[own], instructions[own])
    clean = own | (there & (found == instructions).all(axis=1))
    wrong = mapped & ~right
    wrong[np.flatnonzero(carried)[there & ~clean]] = True
    return [int(ip) for ip in short["ip"][wrong]]


def remove_region(target: Target, region: Region, *, limit_s: float | None = None) -> int:
    """Unmap the region once no thread is in its code; bytes that had to stay parked, or 0.

    The text must have been restored.  Tries again for `limit_s` seconds, REMOVE_LIMIT_S if it is
    None, in short stops.
    """
    deadline, pause_s = time.monotonic(), _PAUSE_S
    deadline += REMOVE_LIMIT_S if limit_s is None else limit_s
    with contextlib.suppress(FentryError):  # then the stub stays, and what its page had lent
        target.sweep()
    while True:
        runs = _private_text(target, region)
        with target.stopped(bounded=False) as halt:
            if not _is_left(halt, region):
                return 0  # another controller was faster
            parked_bytes = sum(s.bytes for s in region.of_kind(Kind.CODE))
            if _is_called(halt, region):
                return parked_bytes
            if region_is_unused(halt, region):
                _remove(halt, region, runs)
                return 0
        if time.monotonic() > deadline:
            return parked_bytes
        time.sleep(pause_s)  # a thread is in a trampoline, or its signal handler runs on top
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def region_is_unused(halt: Halt, region: Region) -> bool:
    """Proof that nobody runs our code: no rip and no interrupted context points into it, and no
    C function is under way."""
    code = region.of_kind(Kind.CODE)
    if any(s.address <= rip < s.end for rip in halt.rips() for s in code):
        return False
    return not functions_run(halt, region)


def _private_text(target: Target, region: Region) -> list[tuple[Mapping, int, int]]:
    # Ranges of text to be given back, each with its mapping as it was when they were looked for.
    try:
        sites = region.registry.sites
        starts = (sites["patch"].astype(np.uint64), _holes(sites)[0], _carriers(sites)[0])
        patch = np.concatenate(starts)
    except PatchError:
        return []  # it is gone: the stop will tell
    maps = read_maps(target.pid)
    # Where a controller that died had left its stub in the vDSO, others used the end of a file.
    rooms = [room for room in rooms_in_files(maps) if room != target.room]
    patch = np.concatenate((patch, np.array(rooms, np.uint64)))
    runs = private_runs(target.pid, target.memory, maps, patch)
    found = [(mapping_at(maps, start), start, end) for start, end in runs]
    return [(mapping, start, end) for mapping, start, end in found if mapping is not None]


def _is_left(halt: Halt, region: Region) -> bool:
    # Whether the region that we restored is still there: nobody's, and where we knew it.
    mapping = find_registry(halt.maps)
    if mapping is None or mapping.start != region.registry.address:
        return False
    return region.registry.is_inherited() or not any(one.pid for one in region.owners.every)


def _is_called(halt: Halt, region: Region) -> bool:
    # Whether any site still leads into our code, or will when somebody takes a breakpoint away
    # from its first byte: it stays mapped rather than crash the target.
    sites = region.registry.sites
    sites = sites[sites["state"] != SiteState.GONE]
    patch = _patches(sites)
    found, mapped = read_mapped(halt.target.memory, patch)
    changed = np.flatnonzero(mapped & differ(found, _original(sites), _widths(sites)))
    starts, instructions = _carriers(sites)
    moved, there = read_mapped(halt.target.memory, starts)
    carried = there & (moved != instructions).any(axis=1)
    return bool(_resembles(sites[changed], found[changed]).any() or carried.any())


def _remove(halt: Halt, region: Region, runs: Sequence[tuple[Mapping, int, int]]) -> None:
    for segment in region.of_kind(Kind.CODE):
        halt.clear_rseq(segment.address, segment.end)
    # What lies there by now may be another file, or no file at all, or a stub: of a controller that
    # has died since, or the one that is to do this.
    used = [room for room in rooms_in_files(halt.maps) if halt.remote.uses(room)]
    kept = [
        give_back(start, end - start)
        for m, start, end in runs
        if m in halt.maps and not any(start <= room < end for room in used)
    ]
    for i in range(0, len(kept), 6):
        with contextlib.suppress(RemoteError):  # an old kernel: the pages stay private, no harm
            halt.remote.run(kept[i : i + 6])
    region.remove_all(halt.remote)


def _original(sites: Rows) -> NDArray[np.uint8]:
    text = np.ascontiguousarray(sites["original"]).view(np.uint8).reshape(-1, 16)
    return np.ascontiguousarray(text[:, :POKE_BYTES])


def _holes(sites: Rows) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    # Where the long jumps of short sites lie, and what was there before.
    short = sites[sites["hole"] != 0]
    holes = short["hole"].astype(np.uint64)
    if (holes % np.uint64(PAGE_BYTES) > np.uint64(PAGE_BYTES - POKE_BYTES)).any():
        raise _crossing()
    filler = np.ascontiguousarray(short["filler"]).view(np.uint8).reshape(-1, 16)
    return holes, hole_filler(filler, short["carrier"])


def _carriers(sites: Rows) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    # Where instructions were moved away for long jumps, and the first five bytes of them.
    carried = sites[sites["carrier"] != 0]
    starts = carried["hole"].astype(np.uint64) - np.uint64(POKE_BYTES)
    if (starts % np.uint64(PAGE_BYTES) > np.uint64(PAGE_BYTES - POKE_BYTES)).any():
        raise _crossing()
    filler = np.ascontiguousarray(carried["filler"]).view(np.uint8).reshape(-1, 16)
    return starts, np.ascontiguousarray(filler[:, :POKE_BYTES])


def _widths(sites: Rows) -> NDArray[np.int64]:
    # How many bytes of each site were replaced.
    return np.where(sites["hole"] != 0, SHORT_SIZE, POKE_BYTES)


def _patches(sites: Rows) -> NDArray[np.uint64]:
    # Where the sites lie. One that crosses a page is none of ours: the registry is damaged.
    patch = sites["patch"].astype(np.uint64)
    last = np.uint64(PAGE_BYTES) - _widths(sites).astype(np.uint64)
    if (patch % np.uint64(PAGE_BYTES) > last).any():
        raise _crossing()
    return patch


def _crossing() -> RegionError:
    return RegionError(
        "the registry names a site that crosses a page",
        cause="the target wrote over it",
        remedy="restart the target; its text may still hold calls",
    )


def _is_ours(region: Region, sites: Rows, found: NDArray[np.uint8]) -> NDArray[np.bool_]:
    # Whether the bytes of each site are a jump to its pad, or a call of a trampoline, whole.
    patch = sites["patch"].astype(np.uint64)
    same = found == _expected(sites)
    jumps, short = same.all(axis=1), same[:, :SHORT_SIZE].all(axis=1)
    distance = np.ascontiguousarray(found[:, 1:]).view("<i4").ravel().astype(np.int64)
    called = (patch.astype(np.int64) + POKE_BYTES + distance).astype(np.uint64)
    calls = (found[:, 0] == CALL) & np.isin(called, region.registry.trampolines["address"])
    result: NDArray[np.bool_] = np.where(sites["hole"] != 0, short, jumps | calls)
    return result


def _resembles(sites: Rows, found: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether changed bytes of each site may be what we wrote, with a breakpoint over a byte or
    two: who takes it away brings a jump or call into our code back."""
    unlike = ((found != _expected(sites)) & (np.arange(POKE_BYTES) < _widths(sites)[:, None])).sum(
        axis=1
    )
    as_call = (found[:, 1:] != _called(sites)[:, 1:]).sum(axis=1) + (found[:, 0] != CALL)
    result: NDArray[np.bool_] = np.where(
        sites["hole"] != 0, unlike < SHORT_SIZE, np.minimum(unlike, as_call) <= 2
    )
    return result


def _expected(sites: Rows) -> NDArray[np.uint8]:
    # The jump of each site to its hole or pad: uint8[n, 5], of short ones two bytes.
    patch, hole = sites["patch"].astype(np.uint64), sites["hole"].astype(np.uint64)
    text = _jumps(patch, _pad_entries(sites))
    short = hole != 0
    text[short, 0] = SHORT_JMP
    text[short, 1] = (hole[short] - patch[short] - np.uint64(SHORT_SIZE)).astype(np.uint8)
    return text


def _pad_entries(sites: Rows) -> NDArray[np.uint64]:
    return entries(sites["pad"].astype(np.uint64), sites["part"] != 0)


def _called(sites: Rows) -> NDArray[np.uint8]:
    # The call of each site's trampoline: uint8[n, 5].
    return _jumps(sites["patch"].astype(np.uint64), sites["call"], CALL)


def _jumps(
    places: NDArray[np.uint64], targets: NDArray[np.uint64], opcode: int = JMP
) -> NDArray[np.uint8]:
    # Branches of five bytes; what is out of reach is none of ours, whatever its distance is.
    distance = targets.astype(np.int64) - places.astype(np.int64) - POKE_BYTES
    text = np.empty((len(places), POKE_BYTES), np.uint8)
    text[:, 0] = opcode
    text[:, 1:] = distance.astype("<i4").view(np.uint8).reshape(-1, 4)
    return text
