"""Going on where a controller died: its ops, its sites, its ring (docs/design/region.md)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from fentry.dispatch.adoption import dead_owner, rows_in_force
from fentry.dispatch.controllers import ops_of_row
from fentry.dispatch.counters import Counters, write_bases
from fentry.errors import TargetGone
from fentry.instance import Host, Instance
from fentry.process.target import Halt
from fentry.region.layout import OPS_DTYPE, Kind, State
from fentry.region.region import Region, Segment
from fentry.region.threads import ThreadTable, read_whole
from fentry.ring.buffer import is_formatted
from fentry.session.attaching import Attached, top_instance
from fentry.session.known import Known
from fentry.session.memory import OpsMemory
from fentry.session.options import Options
from fentry.session.place import Place
from fentry.session.transaction import Transaction


def adopt_region(place: Place, host: Host, options: Options) -> Attached:
    """The row of a dead controller is ours, with its rings, counters and tables. Raises TargetGone
    when there is none, LockError when every controller lives."""
    target = place.target
    counters: Counters | None = None
    tables: dict[int, tuple[ThreadTable, bytes]] = {}
    silenced = False
    with target.stopped() as halt:
        region = _own_region(place, halt)
        owner, owners = dead_owner(place.pid, region), region.owners
        cpu = halt.traits()
        region.forget_planned(halt.maps)
        place.own(region, owners.take(owner) if owner is not None else owners.claim())
        region.registry.end_change()
        instances = top_instance(place, host, options)
        for segment in region.segments:
            if segment.owner != place.owner.number and segment.kind is not Kind.FOLLOW:
                continue
            if _is_unfinished(place, segment):
                region.drop(halt.remote, [segment])  # it died making it: nobody uses it
            elif segment.kind is Kind.FOLLOW:
                place.switches = region.share(halt.remote, segment)
                silenced = not region.is_followed
                region.allow()
            elif segment.kind is Kind.THREADS:
                found = read_whole(target.memory, segment)
                memory = region.share(halt.remote, segment)
                tables[segment.row] = ThreadTable(segment, memory, found), found
            elif segment.kind is Kind.COUNTERS:
                counters = Counters(region, segment, region.share(halt.remote, segment))
                write_bases(target.memory, region, segment)
            elif segment.kind is Kind.RING:
                number = segment.instance
                if number != place.owner.top:
                    instances[number] = Instance(host, number, segment.name, options.geometry())
                memory = region.share(halt.remote, segment)
                instances[number].take_ring(segment, memory)
        for instance in instances.values():
            if silenced and instance.segment is not None:
                instance.switch_on(halt)
        place.follow_children()
    return Attached(cpu, instances, counters=counters, tables=tuple(tables.values()))


def _own_region(place: Place, halt: Halt) -> Region:
    region = Region.open(place.target.memory, halt.maps)
    if region is None or not region.is_whole or region.registry.is_inherited():
        raise TargetGone(
            f"process {place.pid} has nothing to adopt",
            cause="no fentry was attached to it",
            remedy=f"fentry record -p {place.pid} -F GLOB",
        )
    return region


def _is_unfinished(place: Place, segment: Segment) -> bool:
    # Whether shared memory has no size yet, or a ring is not formatted.
    if segment.kind not in (Kind.RING, Kind.COUNTERS, Kind.THREADS, Kind.FOLLOW):
        return False
    start = place.target.memory.read_some(segment.address, 16)
    return not start or (segment.kind is Kind.RING and not is_formatted(start))


def adopt_ops(
    place: Place,
    known: Known,
    memory: OpsMemory,
    transaction: Transaction,
    tables: Sequence[tuple[ThreadTable, bytes]],
) -> None:
    """The ops of the row that is ours are `known`, and what the dead one was in the middle of is
    done. Raises as Session.register."""
    members = known.read()
    rows = place.region.registry.ops
    rows["state"][rows["owner"] != place.owner.number] = State.FREE
    kept, over = rows_in_force(rows, known.natives.ids)
    if over:
        place.turns.retried(partial(_free_ops_rows, place, known, over))
    for number in kept:
        row = rows[number]
        place.rows.take(int(row["id"]), number)
        ops = ops_of_row(row)
        ops.members = members.get(ops.id, np.zeros(len(known.functions.table), np.bool_))
        if len(row["filter"]) < OPS_DTYPE["filter"].itemsize:  # it is whole
            ops.members = known.functions.match(ops.filter, ops.notrace, lenient=True)
            known.refuse_foreign(ops.members)
        known.ops[ops.id] = ops
    memory.adopt_threads(tables)
    known.park_functions()
    known.share_out_redirects()
    transaction.adopt_flags()
    transaction.apply()  # what it was in the middle of is done
    transaction.end_older_children()  # they write into the rings that were there before


def _free_ops_rows(place: Place, known: Known, numbers: Sequence[int]) -> None:
    with known.owned(), known.dispatcher.ownership.changing():
        for number in numbers:
            place.region.registry.write_ops(number, np.zeros((), OPS_DTYPE))
