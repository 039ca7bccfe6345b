"""A snapshot from the memory of a living process, which is not stopped for it."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput
from fentry.events.clock import ClockPair
from fentry.formats.tasks_seen import TasksSeen
from fentry.formats.tracefile_payloads import Task
from fentry.process.maps import read_maps
from fentry.process.proc import command_of, living
from fentry.process.target import Target
from fentry.region.region import Region
from fentry.ring.buffer import RingBuffer, RingMemory
from fentry.ring.clock import sample
from fentry.ring.layout import CPU_LINE_DTYPE, LINE_BYTES
from fentry.symbols.module import Module, load_modules

_AT_ONCE = 4 << 20


class ProcessSource:
    """A process as the source of a snapshot. Raises BadInput when nothing of fentry is in it, or it
    only inherited that; RegionError when it is damaged."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.name = f"process {target.pid}"
        self.pid = target.pid
        self.exe = os.readlink(f"{living(target.pid)}/exe")
        self.command = tuple(command_of(target.pid).split())
        region = Region.open(target.memory, read_maps(target.pid))
        if region is None or not region.is_whole or region.registry.is_inherited():
            raise BadInput(f"{self.name} holds no ring", cause="nothing is recorded there")
        self.registry = region.registry

    def ring(self, address: int, count: int) -> RingMemory | None:
        """As Source.ring; a part is copied after its head."""
        maps = read_maps(self.pid)
        if not any(one.start <= address and address + count <= one.end for one in maps):
            return None  # the target has written over the registry
        return _Copy(self._target, address, count)

    def heads(self, ring: RingBuffer, address: int) -> NDArray[np.uint64]:
        """As Source.heads: as they are now."""
        g = ring.geometry
        places = [address + g.cpu_lines_offset + n * g.cpu_bytes for n in range(g.nr_cpus)]
        lines = b"".join(self._target.memory.read(at, LINE_BYTES) for at in places)
        return np.asarray(np.frombuffer(lines, CPU_LINE_DTYPE)["head"], np.uint64)

    def modules(self) -> tuple[list[Module], list[str]]:
        """As Source.modules."""
        target = self._target
        return load_modules(target.pid, read_maps(target.pid), target.memory.read_some), []

    def tasks(self) -> list[Task]:
        """As Source.tasks: the names of this moment."""
        return TasksSeen(by_records=False).look(self.pid)

    def now(self) -> ClockPair | None:
        """As Source.now."""
        return ClockPair(*sample())


class _Copy:
    def __init__(self, target: Target, address: int, count: int) -> None:
        self.bytes: NDArray[np.uint8] = np.empty(count, np.uint8)
        for start in range(0, count, _AT_ONCE):
            end = min(start + _AT_ONCE, count)
            piece = target.memory.read(address + start, end - start)
            self.bytes[start:end] = np.frombuffer(piece, np.uint8)

    def __len__(self) -> int:
        return len(self.bytes)
