"""How much may still be used: memory of the machine and of memory cgroups, and what limits a
process has of its own."""

from __future__ import annotations

import os
import resource

from fentry.process.proc import living

_V1 = "/sys/fs/cgroup/memory"
_V2 = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def available_bytes(pid: int) -> int:
    """The least of MemAvailable and what is left in the cgroups of us and of process `pid`."""
    amounts = [_mem_available()]
    for who in ("self", str(pid)):
        amounts += _cgroup_rooms(who)
    return min(amounts)


def address_space_left(pid: int, used: int) -> int | None:
    """Bytes that process `pid`, of whose address space `used` are taken, may still map; None where
    it has no limit (RLIMIT_AS), or it cannot be seen."""
    limit = _soft_limit(pid, resource.RLIMIT_AS)
    return None if limit is None else max(0, limit - used)


def descriptors_left(pid: int) -> int | None:
    """How many files process `pid` may still open (RLIMIT_NOFILE); None if it cannot be seen."""
    limit = _soft_limit(pid, resource.RLIMIT_NOFILE)
    try:
        return None if limit is None else max(0, limit - len(os.listdir(f"{living(pid)}/fd")))
    except OSError:
        return None


def _soft_limit(pid: int, which: int) -> int | None:
    try:
        soft, _ = resource.prlimit(pid, which)
    except OSError:
        return None
    return None if soft == resource.RLIM_INFINITY else soft


def _mem_available() -> int:
    with open("/proc/meminfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 62


def _cgroup_rooms(who: str) -> list[int]:
    try:
        with open(f"/proc/{who}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    rooms: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            rooms += _rooms_above(_V1, path, "memory.limit_in_bytes", "memory.usage_in_bytes")
        elif not controllers:
            for root in _V2:
                rooms += _rooms_above(root, path, "memory.max", "memory.current")
    return rooms


def _rooms_above(root: str, path: str, limit: str, usage: str) -> list[int]:
    # A group is bound by its own limit and by those of all groups above it.
    rooms = []
    while True:
        room = _room(root + path, limit, usage)
        if room is not None:
            rooms.append(room)
        if path in ("/", ""):
            return rooms
        path = os.path.dirname(path)


def _room(folder: str, limit: str, usage: str) -> int | None:
    try:
        with open(os.path.join(folder, limit), encoding="utf-8") as file:
            most = file.read().strip()
        with open(os.path.join(folder, usage), encoding="utf-8") as file:
            used = int(file.read())
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - used)
