"""The controllers of a region, each with a row in its registry (docs/design/controllers.md).

Rows are written inside a stop only. One whose process has died keeps its row, and what is its:
until somebody adopts or detaches it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from fentry.errors import RegionError
from fentry.process.proc import command_of, read_stat
from fentry.region.layout import MAX_RINGS, OWNER_DTYPE, OWNER_ROWS, Kind, State
from fentry.region.registry import Registry, Rows

ID_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Owner:
    """A controller: `number` from 1, process and its start time (clock ticks since boot), pid
    namespace (inode number), `serial` of this one attach; a bit for each of its instances, and the
    number of the top one. pid 0 is nobody's: it gave up what it had."""

    number: int
    pid: int
    start_time: int
    namespace: int
    serial: int
    instances: int
    top: int

    @property
    def is_alive(self) -> bool:
        """Whether its process lives. One of another pid namespace cannot be seen: it does."""
        if not self.pid:
            return False
        if self.namespace != own_namespace():
            return True
        try:
            stat = read_stat(self.pid)
        except ProcessLookupError:
            return False
        return stat.start_time == self.start_time and not stat.is_dead

    @property
    def text(self) -> str:
        """For people."""
        if self.namespace != own_namespace():
            return f"process {self.pid} of another pid namespace"
        return f"process {self.pid} ({command_of(self.pid)})"


class Owners:
    """The table of owners of one registry; every method reads the target anew."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @property
    def every(self) -> list[Owner]:
        """All of them, dead ones and nobody's as well."""
        rows = self._registry.owners
        return [_owner(i + 1, rows[i]) for i in np.flatnonzero(rows["state"]).tolist()]

    @property
    def living(self) -> list[Owner]:
        """Those whose process lives."""
        return [one for one in self.every if one.is_alive]

    def holds(self, owner: Owner) -> bool:
        """Whether an owner has its row still: nobody took it, or detached all."""
        return self.generation_of(owner) is not None

    def generation_of(self, owner: Owner) -> int | None:
        """The generation of the registry; None if an owner has no row any more."""
        return self.generation_in(self._registry.head[1], owner)

    def generation_in(self, head: bytes, owner: Owner) -> int | None:
        """The same, as a Registry.head says it."""
        generation, rows = self._registry.generation_and_owners(head)
        row = rows[owner.number - 1]
        held = bool(row["state"]) and int(row["serial"]) == owner.serial and int(row["pid"]) != 0
        return generation if held else None

    # Inside a stop

    def first(self) -> Owner:
        """The first row, for this process, of a region that it has just made."""
        return self._write(1, instances=1, top=0)

    def claim(self) -> Owner:
        """A row for this process, with a top instance. Raises RegionError when all are taken."""
        kept = {int(one) for one in _ops(self._registry)["owner"]}
        kept |= {int(one) for one in _segments(self._registry)["owner"]}
        rows = self._registry.owners
        known = {one.number: one for one in self.every}
        for number in range(1, OWNER_ROWS + 1):
            one = known.get(number)
            if number in kept or (one is not None and one.is_alive):
                continue
            rows["state"][number - 1] = State.FREE
            free = _free_instances(self._registry, rows, first=0)
            if not free:
                raise RegionError(f"{MAX_RINGS} instances exist already", cause="all controllers'")
            return self._write(number, instances=1 << free[0], top=free[0])
        raise RegionError(
            f"{OWNER_ROWS} controllers are attached to the process already",
            cause="each keeps its row until it detaches, also one that has died",
            remedy="fentry status lists them; fentry record --adopt, or fentry detach",
        )

    def take(self, owner: Owner) -> Owner:
        """This process in place of a dead owner, with all that it has."""
        return self._write(owner.number, instances=owner.instances, top=owner.top)

    def _write(self, number: int, *, instances: int, top: int) -> Owner:
        row = np.zeros((), OWNER_DTYPE)
        row["pid"], row["state"] = os.getpid(), State.LIVE
        row["start_time"] = read_stat(os.getpid()).start_time
        row["namespace"], row["serial"] = own_namespace(), time.monotonic_ns()
        row["instances"], row["top"] = instances, top
        self._registry.write_owner(number - 1, row)
        return _owner(number, row)

    def add_instance(self, owner: Owner) -> int:
        """A number for one more instance of an owner; 0 when none is left."""
        rows = self._registry.owners
        free = _free_instances(self._registry, rows, first=1)
        if not free:
            return 0
        rows["instances"][owner.number - 1] |= np.uint64(1 << free[0])
        self._registry.write_owner(owner.number - 1, rows[owner.number - 1])
        return free[0]

    def remove_instance(self, owner: Owner, number: int) -> None:
        """Give the number of an instance back."""
        rows = self._registry.owners
        rows["instances"][owner.number - 1] &= np.uint64(~(1 << number) & (1 << 64) - 1)
        self._registry.write_owner(owner.number - 1, rows[owner.number - 1])

    def leave(self, owner: Owner) -> None:
        """The row is free."""
        self._registry.write_owner(owner.number - 1, np.zeros((), OWNER_DTYPE))

    def disown(self, owner: Owner | None = None) -> None:
        """What one has, or all have, is nobody's from now on."""
        rows = self._registry.owners
        for i in range(OWNER_ROWS) if owner is None else (owner.number - 1,):
            if rows["pid"][i]:
                rows["pid"][i] = 0
                self._registry.write_owner(i, rows[i])

    def take_ids(self) -> range:
        """Ids of ops that nobody has had."""
        first = int(self._registry.header["next_id"])
        self._registry.write_header(next_id=first + ID_BLOCK)
        return range(first, first + ID_BLOCK)


@cache
def own_namespace() -> int:
    """The pid namespace of this process, as an inode number."""
    return os.stat("/proc/self/ns/pid").st_ino


def _ops(registry: Registry) -> Rows:
    rows = registry.ops
    live: Rows = rows[rows["state"] == State.LIVE]
    return live


def _segments(registry: Registry) -> Rows:
    # A C function that is over leaves its segment to whoever needs one.
    rows = registry.segments
    used: Rows = rows[(rows["state"] != State.FREE) & (rows["kind"] != Kind.DATA)]
    return used


def _free_instances(registry: Registry, owners: Rows, *, first: int) -> list[int]:
    # Number 0 is for a top instance only: `first` is 0 for one.
    taken = 0
    for row in owners[owners["state"] != State.FREE]:
        taken |= int(row["instances"])
    rows = _segments(registry)
    for one in rows["instance"][rows["kind"] == Kind.RING].tolist():
        taken |= 1 << min(one, MAX_RINGS)
    return [n for n in range(first, MAX_RINGS) if not taken >> n & 1]


def _owner(number: int, row: Rows | np.void) -> Owner:
    return Owner(
        number, int(row["pid"]), int(row["start_time"]), int(row["namespace"]),
        int(row["serial"]), int(row["instances"]), int(row["top"]),
    )  # fmt: skip
