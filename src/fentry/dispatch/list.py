"""The list: ops that share one trampoline for all their functions, and are asked one by one.

Who is on it, as a pure function of the plan; and its tables in the target, version by version.  A
version is complete before a trampoline gets its address, and is never changed: who walks one
walks it to its end.  Mirrors ftrace_ops_list_func() and ftrace_update_trampoline().
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.plan import Plan
from fentry.region.layout import LIST_DTYPE, MAX_SET
from fentry.region.lists import ListEntry
from fentry.trampolines.arena import SLOT_BYTES, Arena
from fentry.trampolines.body import Body, Traits
from fentry.trampolines.list import build_list_body

LIST = (0,)  # what a site calls that is on the list: no set of ops is this one, ids begin at 1

_LEAST_SITES = 4096

Rows = NDArray[np.int64]

_NO_SITES: Rows = np.empty(0, np.int64)


# 1. Who is on the list


@dataclass(frozen=True, slots=True)
class Listed:
    """The sites that call the list, or did and may have a call that has not looked at it yet, and
    what of it each wants: `wants` is bool[ops, sites]."""

    order: tuple[int, ...]
    sites: Rows
    wants: NDArray[np.bool_]


def too_large(plan: Plan) -> NDArray[np.bool_]:
    """Which sets of the plan hold more ops than a row of the registry has room for."""
    return np.array([len(chosen) > MAX_SET for chosen in plan.sets], np.bool_)


def overflow(
    plan: Plan, arenas: NDArray[np.int32], known: Callable[[tuple[int, ...], int], bool], room: int
) -> NDArray[np.bool_]:
    """Which sets have to go on the list because only `room` new trampolines can be made.

    `known` says whether a set has its trampoline in an arena.  Sets with the most sites are
    served first.
    """
    result = np.zeros(len(plan.sets), np.bool_)
    pairs, counts = np.unique(
        np.stack([plan.wanted.astype(np.int64), arenas.astype(np.int64)]), axis=1,
        return_counts=True,
    )  # fmt: skip
    need: dict[int, int] = {}
    sites: dict[int, int] = {}
    for (index, arena), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        if index and not known(plan.sets[index], arena):
            need[index] = need.get(index, 0) + 1
            sites[index] = sites.get(index, 0) + count
    for index in sorted(need, key=lambda i: (-sites[i], plan.sets[i])):
        room -= need[index]
        result[index] = room < 0
    return result


def split(
    plan: Plan,
    on_list: NDArray[np.bool_],
    left: Rows = _NO_SITES,
    is_direct: Callable[[int], bool] = lambda _: False,
) -> tuple[Plan, Listed]:
    """The plan with LIST in place of the sets `on_list`, and what the list is to know: also of the
    sites that `left` it, whose calls may be on their way. No ops is on it that `is_direct`."""
    sites = np.flatnonzero(on_list[plan.wanted])
    told = np.concatenate([sites, np.setdiff1d(left, sites)])
    users = {one for i in np.unique(plan.wanted[told]).tolist() for one in plan.sets[i]}
    order = tuple(one for one in plan.order if one in users and not is_direct(one))
    has = np.array([[one in chosen for chosen in plan.sets] for one in order], np.bool_)
    has = has.reshape(len(order), len(plan.sets))
    wanted = plan.wanted.copy()
    wanted[sites] = len(plan.sets)
    return (
        Plan((*plan.sets, LIST), wanted, plan.order),
        Listed(order, told, has[:, plan.wanted[told]]),
    )


# 2. What lies in the target


class Piece(NamedTuple):
    """Memory in the arena of the list: a body, else a bitmap or a table."""

    address: int
    bytes: int
    is_code: bool = False


class Entry(NamedTuple):
    """One ops as the table has it."""

    id: int
    body: Body
    bits: bytes


@dataclass(frozen=True, slots=True)
class Version:
    """A table, what it holds, every piece of memory that it leads to, and the ids of its ops."""

    entries: tuple[Entry, ...] = ()
    table: int = 0
    pieces: frozenset[Piece] = frozenset()
    ids: frozenset[int] = frozenset()


@dataclass(slots=True)
class Update:
    """The next version before it is in the target: `writes` are (address, bytes) in any order."""

    entries: tuple[Entry, ...]
    need_bytes: int
    version: Version | None = None
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    bodies: dict[Body, Piece] = field(default_factory=dict)
    bitmaps: dict[bytes, Piece] = field(default_factory=dict)


class OpsList:
    """The list of one target: the version its trampolines walk, and memory that is parked."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits
        self.now = Version()
        # Pieces with the ids of all versions that they were in: who calls a C function comes back.
        self.parked: dict[Piece, frozenset[int]] = {}
        self._ids: dict[Piece, frozenset[int]] = {}
        self._bodies: dict[Body, Piece] = {}
        self._bitmaps: dict[bytes, Piece] = {}
        self._adopted: dict[int, Piece] = {}  # bodies by the ops that they are for
        self._is_stale = False

    def adopt(self, tables: Mapping[int, Sequence[ListEntry]]) -> None:
        """Take over the tables that are in the target, by address. There is more than one when a
        controller died between two arenas."""
        pieces: set[Piece] = set()
        ids: set[int] = set()
        for address, entries in tables.items():
            if not address:
                continue  # a trampoline that was never told: nobody calls it
            ids |= {one.id for one in entries}
            pieces.add(Piece(address, _table_bytes(len(entries))))
            for one in entries:
                self._adopted[one.id] = Piece(one.body, one.body_bytes, True)
                self._bitmaps[one.bits] = Piece(one.bitmap, len(one.bits))
                pieces |= {self._adopted[one.id], self._bitmaps[one.bits]}
            self.now = Version((), address, frozenset(pieces), frozenset(ids))
            self._ids = dict.fromkeys(pieces, self.now.ids)
        self._is_stale = bool(tables)

    @property
    def ids(self) -> set[int]:
        """The ops whose bodies somebody may call or be in."""
        return set(self.now.ids).union(*self.parked.values(), *self._ids.values())

    @property
    def is_empty(self) -> bool:
        """Whether no ops is on it, so that nobody calls it."""
        return not self.now.entries and not self._is_stale

    def prepare(
        self, listed: Listed, body_of: Callable[[int], Body], row_of_site: Rows, rows: int
    ) -> Update | None:
        """What brings the target to the list `listed`; None if it has it. `rows` of the registry
        are in use."""
        entries = self._entries(listed, body_of, row_of_site, rows)
        if entries == self.now.entries and not self._is_stale:
            return None
        update = Update(entries, _slots(_table_bytes(len(entries))))
        for one in entries:
            if one.body not in self._bodies and one.id in self._adopted:
                self._bodies[one.body] = self._adopted[one.id]
            if one.body not in self._bodies and one.body not in update.bodies:
                code = build_list_body(one.body, self._traits)
                update.bodies[one.body] = Piece(0, len(code.data))
                update.need_bytes += _slots(len(code.data))
            if one.bits not in self._bitmaps and one.bits not in update.bitmaps:
                update.bitmaps[one.bits] = Piece(0, len(one.bits))
                update.need_bytes += _slots(len(one.bits))
        return update

    def _entries(
        self, listed: Listed, body_of: Callable[[int], Body], row_of_site: Rows, rows: int
    ) -> tuple[Entry, ...]:
        count = max(_LEAST_SITES, 1 << max(0, rows - 1).bit_length())
        numbers = row_of_site[listed.sites]
        found = []
        for one, wants in zip(listed.order, listed.wants, strict=True):
            bits = np.zeros(count, np.uint8)
            bits[numbers[wants]] = 1
            text = np.packbits(bits, bitorder="little").tobytes()
            found.append(Entry(one, body_of(one), text))
        return tuple(found)

    def place(self, update: Update, arena: Arena) -> None:
        """Give the update its memory; nothing is written yet."""

        def put(data: bytes) -> Piece:
            piece = Piece(arena.take(len(data)), len(data))
            update.writes.append((piece.address, data))
            return piece

        for body in update.bodies:
            code = build_list_body(body, self._traits)
            piece = Piece(arena.take(len(code.data)), len(code.data), True)
            update.writes.append((piece.address, code.moved(piece.address).data))
            update.bodies[body] = piece
        for bits in update.bitmaps:
            update.bitmaps[bits] = put(bits)
        bodies, bitmaps = self._bodies | update.bodies, self._bitmaps | update.bitmaps
        table = np.zeros(len(update.entries) + 1, LIST_DTYPE)
        pieces = set()
        for row, one in zip(table, update.entries, strict=False):
            body_at, bits_at = bodies[one.body], bitmaps[one.bits]
            row["body"], row["body_bytes"] = body_at.address, body_at.bytes
            row["bitmap"], row["sites"] = bits_at.address, 8 * len(one.bits)
            row["id"] = one.id
            pieces |= {body_at, bits_at}
        at = put(table.tobytes())
        ids = frozenset(one.id for one in update.entries)
        update.version = Version(update.entries, at.address, frozenset(pieces | {at}), ids)

    def commit(self, update: Update) -> None:
        """The update is in the target; what only the version before it used is parked."""
        assert update.version is not None
        for piece in self.now.pieces - update.version.pieces:
            self.parked[piece] = self._ids.pop(piece)
        for piece in update.version.pieces:
            self._ids[piece] = self._ids.get(piece, frozenset()) | update.version.ids
        self._bodies |= update.bodies
        self._bitmaps |= update.bitmaps
        self.now, self._is_stale = update.version, False
        self._adopted.clear()
        kept = self.now.pieces
        self._bodies = {body: piece for body, piece in self._bodies.items() if piece in kept}
        self._bitmaps = {bits: piece for bits, piece in self._bitmaps.items() if piece in kept}

    def abandon(self, update: Update) -> None:
        """The update failed when it was partly written: nothing of it is used again before it is
        proved that nobody walks it."""
        if update.version is not None:
            for piece in update.version.pieces - self.now.pieces:
                self.parked[piece] = update.version.ids

    def free(self, running: Set[int]) -> list[Piece]:
        """The parked pieces that nobody comes back to, given that no rip is in the list and of all
        C functions only those of the ops `running` may be under way: they are free now."""
        freed = [piece for piece, ids in self.parked.items() if not ids & running]
        for piece in freed:
            del self.parked[piece]
        left = self.now.ids | running
        self._ids = {piece: ids & left for piece, ids in self._ids.items()}
        return freed

    @property
    def code(self) -> list[tuple[int, int]]:
        """Where all bodies lie that somebody may be in: from, and up to."""
        adopted = self._adopted.values()
        pieces = {p for p in {*self.now.pieces, *self.parked, *adopted} if p.is_code}
        return [(p.address, p.address + p.bytes) for p in pieces]

    def is_walked(self, rips: NDArray[np.uint64], trampolines: Sequence[tuple[int, int]]) -> bool:
        """Whether one of `rips` is in the list: in a trampoline (low, high) of it or in a body."""
        spans = [*trampolines, *self.code]
        return any(((rips >= np.uint64(a)) & (rips < np.uint64(b))).any() for a, b in spans)


def _table_bytes(entries: int) -> int:
    return (entries + 1) * LIST_DTYPE.itemsize


def _slots(count: int) -> int:
    return -(-count // SLOT_BYTES) * SLOT_BYTES
