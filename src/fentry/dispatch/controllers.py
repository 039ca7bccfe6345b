"""The other controllers of a process: their ops, as rows and text tell them to whoever plans.

One plan is made for the text, whoever makes it: with one's own ops and with these. What they need,
a ring, counters, tables of threads, C functions, is theirs; only where it lies is read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.natives import Natives
from fentry.dispatch.ops import Callback, Flags, Ops, split_words
from fentry.errors import LockError, PatchError
from fentry.process.proc import possible_cpus
from fentry.region.layout import Kind, State, counter_bases_offset, room_offset
from fentry.region.region import Region, Segment
from fentry.ring import layout as ring_layout
from fentry.ring.buffer import Geometry, geometry_of
from fentry.trampolines.body import Body, CountBody, RecordBody

COUNT_SLOTS = 8

_CALLBACKS = {int(one) for one in Callback}


class Outdated(LockError):
    """Another controller has changed the target since it was looked at: look again."""


class Others:
    """The ops of all controllers but the one with this number: `ops` by id, each with the members
    that call it now; `ids` of them all, and `rows` of the registry that hold them."""

    def __init__(
        self, region: Region, natives: Natives, owner: int, members: Mapping[int, NDArray[np.bool_]]
    ) -> None:
        self._region = region
        self._natives = natives
        self._segments = region.segments
        self.ops: dict[int, Ops] = {}
        self.rows: set[int] = set()
        self.ids: set[int] = set()
        self._owner_of: dict[int, int] = {}
        rows = region.registry.ops
        for number in np.flatnonzero(rows["state"] == State.LIVE).tolist():
            row = rows[number]
            if int(row["owner"]) == owner:
                continue
            self.rows.add(number)
            self.ids.add(int(row["id"]))
            found = members.get(int(row["id"]))
            if found is not None and found.any() and int(row["callback"]) in _CALLBACKS:
                one = ops_of_row(row)
                one.members = found
                self.ops[one.id] = one
                self._owner_of[one.id] = int(row["owner"])

    def name_of(self, number: int) -> str:
        """Whose the ops of this id is, for people."""
        owner = self._owner_of.get(number, 0)
        found = [one for one in self._region.owners.every if one.number == owner]
        return found[0].text if found and found[0].pid else "a controller that is gone"

    def body(self, number: int, *, threads: bool) -> Body:
        """What a trampoline does for an ops of theirs; `threads` says whether this process can tell
        threads apart in the target. Raises PatchError where the registry does not tell."""
        ops = self.ops[number]
        table = self._threads(ops, threads)
        if ops.callback is Callback.RECORD:
            return self._record_body(ops, table)
        if ops.callback is Callback.COUNT:
            return self._count_body(ops, table)
        if number not in self._natives.ids:
            raise self._unknown(ops)
        return self._natives.body(number, table)

    def _threads(self, ops: Ops, known: bool) -> int:
        if Flags.PID not in ops.flags:
            return 0
        found = self._find(Kind.THREADS, ops, ops.id)
        if not known or found is None:
            raise self._unknown(ops)
        return found.address

    def _record_body(self, ops: Ops, threads: int) -> RecordBody:
        segment = self._find(Kind.RING, ops, ops.instance)
        if segment is None:
            raise self._unknown(ops)
        page = self._region.memory.read(segment.address, ring_layout.HEADER_BYTES)
        try:
            geometry = geometry_of(page, segment.bytes)
        except ValueError as error:
            raise self._unknown(ops) from error
        return record_body(self._region, segment, geometry, threads)

    def _count_body(self, ops: Ops, threads: int) -> CountBody:
        segment = self._find(Kind.COUNTERS, ops, None)
        if segment is None:
            raise self._unknown(ops)
        return count_body(self._region, segment, ops.slot, threads)

    def _find(self, kind: Kind, ops: Ops, instance: int | None) -> Segment | None:
        owner = self._owner_of[ops.id]
        for one in self._segments:
            if (one.kind, one.owner) == (kind, owner) and instance in (None, one.instance):
                return one
        return None

    def _unknown(self, ops: Ops) -> PatchError:
        return PatchError(
            f"ops {ops.id} of {self.name_of(ops.id)} is on these functions and cannot be kept",
            cause="its ring, counters, threads or function make no sense here",
            remedy="other functions, or fentry detach",
        )


def ops_of_row(row: np.void) -> Ops:
    """The ops of a row of the registry, without members and threads."""
    text = bytes(row["filter"]).decode(errors="surrogateescape")
    ops = Ops(Callback(int(row["callback"])), *split_words(text))
    ops.id, ops.slot = int(row["id"]), int(row["slot"])
    ops.instance, ops.flags = int(row["instance"]), Flags(int(row["flags"]))
    return ops


def record_body(
    region: Region, segment: Segment, geometry: Geometry, threads: int = 0
) -> RecordBody:
    """What a trampoline does to record into a ring."""
    g = geometry
    return RecordBody(
        lines=segment.address + g.cpu_lines_offset,
        records=segment.address + g.records_offset,
        tail=g.tails_offset - g.cpu_lines_offset,
        room=region.switches + room_offset(segment.instance),
        cpu_bytes=g.cpu_bytes,
        capacity=g.capacity,
        record_bytes=g.record_bytes,
        threads=threads,
        overwrites=g.mode == ring_layout.MODE_OVERWRITE,
        clock=g.clock,
        stray=segment.address + g.stray_offset if g.has_strays else 0,
    )


def count_body(region: Region, segment: Segment, slot: int, threads: int = 0) -> CountBody:
    """What a trampoline does to count in a slot of the counters of a controller."""
    slot_bytes = int(region.registry.header["site_rows"]) * 8
    return CountBody(
        bases=region.bases + counter_bases_offset(segment.owner, possible_cpus()),
        displacement=slot * slot_bytes,
        shared=segment.address + possible_cpus() * COUNT_SLOTS * slot_bytes,
        control=region.switches,
        threads=threads,
    )
