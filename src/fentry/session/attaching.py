"""Attaching to a target: its region is made, or shared with the controllers that have one."""

from __future__ import annotations

from dataclasses import dataclass

from fentry.dispatch.counters import Counters
from fentry.dispatch.detach import is_in_use, undo
from fentry.dispatch.turns import MOST_TRIES
from fentry.errors import LockError
from fentry.instance import Host, Instance
from fentry.process.target import CpuTraits, Halt
from fentry.region.layout import HeaderFlag
from fentry.region.owners import Owner
from fentry.region.region import Region
from fentry.region.registry import UnfinishedRegistry, find_registry
from fentry.region.threads import ThreadTable
from fentry.session.options import Options
from fentry.session.place import Place


@dataclass(frozen=True, slots=True)
class Attached:
    """What was found and made: `instances` by number, and of a dead controller its counters and
    the tables of threads, each with what it holds."""

    cpu: CpuTraits
    instances: dict[int, Instance]
    has_company: bool = False
    counters: Counters | None = None
    tables: tuple[tuple[ThreadTable, bytes], ...] = ()


def attach_region(place: Place, host: Host, options: Options, rows: int) -> Attached:
    """Own a row of the region, made with so many `rows` of sites if there is none. Raises
    LockError, TargetGone, AttachError, StopTimeout."""
    for _ in range(MOST_TRIES):
        with place.target.stopped() as halt:
            region = _region_of_others(place, options, halt)
            if region is not None:
                cpu = halt.traits()
                region.forget_planned(halt.maps)
                place.own(region, region.owners.claim())
                break
            if find_registry(halt.maps) is None:
                cpu = halt.traits()
                halt.stop.refuse_if_late()
                _make_region(place, options, halt, rows)
                break
        undo(place.target, from_living=False)  # it died, or has detached, just now
    else:
        raise LockError(
            f"process {place.pid} is traced by another fentry",
            cause="it attached a moment ago, or a thread is still in its code",
            remedy=f"fentry status -p {place.pid}",
        )
    return Attached(cpu, top_instance(place, host, options), has_company=region is not None)


def top_instance(place: Place, host: Host, options: Options) -> dict[int, Instance]:
    """The instance that every session has, by number."""
    number = place.owner.top
    return {number: Instance(host, number, "", options.geometry())}


def _make_region(place: Place, options: Options, halt: Halt, rows: int) -> None:
    region = Region.create(halt.remote, place.target.memory, halt.maps, rows)
    place.own(region, region.owners.first())
    if options.follow_forks:
        place.switches = region.add_follow(halt.remote)
        place.follow_children()


def _region_of_others(place: Place, options: Options, halt: Halt) -> Region | None:
    # The region that living controllers have, or PERMANENT ops: this one joins them.
    try:
        region = Region.open(place.target.memory, halt.maps)
    except UnfinishedRegistry:
        return None
    if region is None or not region.is_whole:
        return None
    living = region.owners.living
    if region.registry.is_inherited() and not (region.is_followed and living):
        return None
    if not is_in_use(region):
        return None
    _refuse_joining(place.pid, options, region, living[0] if living else None)
    return region


def _refuse_joining(pid: int, options: Options, region: Region, owner: Owner | None) -> None:
    # What holds for the whole of a process is one controller's.
    off = int(region.registry.header["flags"]) & HeaderFlag.OFF
    cause = f"{owner.text} is recording it" if owner else "PERMANENT ops go on there"
    if region.follow is not None:
        cause += " and its forked children"
    elif off:
        cause += ", and has switched all functions off"
    elif options.follow_forks:
        cause += "; who follows forked children must be the only one"
    else:
        return
    raise LockError(
        f"process {pid} is traced by another fentry",
        cause=cause,
        remedy=f"fentry status -p {pid}; fentry detach -p {pid}",
    )
