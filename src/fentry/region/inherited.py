"""Forked children that carry a traced parent's text and region: silent, but not restored.

They are found by the inode of the registry's memfd, which their maps show, wherever they are in
the process tree by now.
"""

from __future__ import annotations

from fentry.errors import FentryError
from fentry.process.maps import Mapping, read_maps
from fentry.process.proc import all_pids
from fentry.region.registry import find_registry


def inheritors_of(pid: int) -> list[int]:
    """Processes other than `pid` that map the same registry, as far as we may look at them."""
    own = _registry(pid)
    if own is None:
        return []
    found = []
    for other in all_pids():
        if other != pid:
            theirs = _registry(other)
            if theirs is not None and (theirs.device, theirs.inode) == (own.device, own.inode):
                found.append(other)
    return found


def _registry(pid: int) -> Mapping | None:
    try:
        return find_registry(read_maps(pid))
    except (FentryError, OSError):
        return None  # gone meanwhile, or not ours to look at
