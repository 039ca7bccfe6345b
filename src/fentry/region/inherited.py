"""Forked children that carry a traced parent's text and region.

They are found by the inode of the registry's memfd, which their maps show, wherever they are in
the process tree by now.
"""

from __future__ import annotations

from dataclasses import dataclass

from fentry.errors import FentryError
from fentry.process.maps import Mapping, parse_maps, read_maps
from fentry.process.memory import Memory
from fentry.process.proc import all_pids, living, read_maps_text, read_stat
from fentry.region.layout import CONTROL_MAGIC, HEADER_DTYPE, REGISTRY_NAME
from fentry.region.region import Region
from fentry.region.registry import find_registry

_GENERATION_OFFSET = HEADER_DTYPE.fields["generation"][1]  # type: ignore[index]


@dataclass(frozen=True, slots=True)
class Identity:
    """What all processes have in common that got one region by fork: the file behind the
    registry, and where registry and control page lie."""

    device: str
    inode: int
    address: int
    control: int


@dataclass(frozen=True, slots=True)
class Bearer:
    """A process that got a region by fork; `generation` is that of its copy of the registry,
    `start_time` in clock ticks since boot."""

    pid: int
    start_time: int
    generation: int


def identity_of(region: Region) -> Identity | None:
    """The identity of a region that exists; None when the process has ended meanwhile."""
    try:
        mapping = find_registry(read_maps(region.memory.pid))
        control = int(region.registry.header["control_address"])
    except FentryError:
        return None
    if mapping is None:
        return None
    return Identity(mapping.device, mapping.inode, mapping.start, control)


def inheritors_of(pid: int) -> list[int]:
    """Processes that got the region of `pid` by fork, as far as we may look at them.

    None for one that got its own by fork: its siblings and its parent are not its children.
    """
    identity = identity_of_maker(pid)
    return [one.pid for one in bearers(identity)] if identity is not None else []


def identity_of_maker(pid: int) -> Identity | None:
    """The identity of the region that was made in process `pid`; None where it has none, or got
    it by fork."""
    try:
        memory = Memory(pid)
    except FentryError:
        return None
    try:
        region = Region.open(memory, read_maps(pid))
        if region is None or not region.is_whole or region.registry.is_inherited():
            return None
        return identity_of(region)
    except FentryError:
        return None  # unfinished, or gone meanwhile
    finally:
        memory.close()


def bearers(identity: Identity) -> list[Bearer]:
    """All processes that got a region by fork, as far as we may look at them."""
    found = []
    for pid in all_pids():
        try:
            one = bearer(pid, identity)
        except (FentryError, OSError):
            continue  # gone meanwhile, or not ours to look at
        if one is not None:
            found.append(one)
    return found


def bearer(pid: int, identity: Identity) -> Bearer | None:
    """Process `pid` as one that got the region by fork, None if it did not: who shares its
    parent's memory (vfork) has nothing of its own.

    Raises TargetGone, and PermissionError or AttachError when we may not look at it.
    """
    start_time = read_stat(pid).start_time
    mapping = _registry(pid)
    if mapping is None or (mapping.device, mapping.inode) != (identity.device, identity.inode):
        return None
    memory = Memory(pid)
    try:
        if memory.read_some(identity.control, 8) == CONTROL_MAGIC.to_bytes(8, "little"):
            return None
        generation = memory.read_some(identity.address + _GENERATION_OFFSET, 8)
    finally:
        memory.close()
    if len(generation) < 8:
        return None
    return Bearer(pid, start_time, int.from_bytes(generation, "little"))


def _registry(pid: int) -> Mapping | None:
    # Most processes have none: their maps are not parsed.
    text = read_maps_text(pid)
    if not text and living(pid) != f"/proc/{pid}":
        return find_registry(read_maps(pid))  # its leader has ended
    at = text.find(b"/memfd:" + REGISTRY_NAME)
    if at < 0:
        return None
    start, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
    return find_registry(parse_maps(text[start:end]))
