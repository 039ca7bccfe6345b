"""Forked children that carry a traced parent's text and region: silent, but not restored.

They are found by the inode of the registry's memfd, which their maps show, wherever they are in
the process tree by now.
"""

from __future__ import annotations

from fentry.errors import FentryError
from fentry.process.maps import Mapping, read_maps
from fentry.process.memory import Memory
from fentry.process.proc import all_pids
from fentry.region.region import Region
from fentry.region.registry import find_registry


def inheritors_of(pid: int) -> list[int]:
    """Processes that got the region of `pid` by fork, as far as we may look at them.

    None for one that got its own by fork: its siblings and its parent are not its children.
    """
    own = _registry(pid)
    if own is None or not _is_maker(pid):
        return []
    found = []
    for other in all_pids():
        if other != pid:
            theirs = _registry(other)
            if theirs is not None and (theirs.device, theirs.inode) == (own.device, own.inode):
                found.append(other)
    return found


def _is_maker(pid: int) -> bool:
    memory = Memory(pid)
    try:
        region = Region.open(memory, read_maps(pid))
        return region is not None and not region.registry.is_inherited()
    except FentryError:
        return False  # unfinished, or gone meanwhile
    finally:
        memory.close()


def _registry(pid: int) -> Mapping | None:
    try:
        return find_registry(read_maps(pid))
    except (FentryError, OSError):
        return None  # gone meanwhile, or not ours to look at
