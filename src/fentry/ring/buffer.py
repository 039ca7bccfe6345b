"""The ring buffer of one instance: geometry, and the shared memory made ready for writers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput
from fentry.ring import layout
from fentry.ring.clock import ClockPair

_LARGEST_CAPACITY = 1 << 31


class RingMemory(Protocol):
    """Where a ring lies, as this process has it: shared with the target, or read from a file."""

    bytes: NDArray[np.uint8]

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where everything of a ring lies, in bytes from its start; capacity in records a CPU.

    `nr_cpus` is the number of its parts: possible CPUs, and with `has_strays` one more, of those
    who cannot take a place in their CPU's part without a lock prefix.
    """

    nr_cpus: int
    capacity: int
    record_bytes: int
    mode: int = layout.MODE_DISCARD
    clock: int = layout.CLOCK_TSC
    has_strays: bool = True

    @classmethod
    def for_bytes(
        cls,
        count: int,
        nr_cpus: int,
        record_bytes: int,
        mode: int = layout.MODE_DISCARD,
        clock: int = layout.CLOCK_TSC,
    ) -> Geometry:
        """A ring with at most `count` bytes of records for each CPU, and for strays: a power of two
        of records."""
        if count < 4096 or count > 1 << 36:
            raise BadInput(f"a buffer of {count} bytes a CPU is not possible", remedy="4K to 64G")
        capacity = 1 << max(7, (count // record_bytes).bit_length() - 1)
        return cls(nr_cpus + 1, min(capacity, _LARGEST_CAPACITY), record_bytes, mode, clock)

    def locked(self) -> Geometry:
        """The same ring for a target whose threads have no rseq."""
        if not self.has_strays:
            return self
        return replace(self, nr_cpus=self.nr_cpus - 1, has_strays=False)

    @property
    def cpu_lines_offset(self) -> int:
        """Offset of the first CpuLine."""
        return layout.HEADER_BYTES

    @property
    def tails_offset(self) -> int:
        """Offset of the first TailLine."""
        return self.cpu_lines_offset + layout.TAIL_AFTER_LINE

    @property
    def records_offset(self) -> int:
        """Offset of the records of CPU 0."""
        return self.cpu_lines_offset + layout.RECORDS_AFTER_LINE

    @property
    def cpu_bytes(self) -> int:
        """Bytes from one CPU's part to the next CPU's."""
        return layout.round_up(layout.RECORDS_AFTER_LINE + self.capacity * self.record_bytes, 4096)

    @property
    def stray_cpu(self) -> int:
        """The number under which calls stand that could not use their CPU's part; -1 for none."""
        return self.nr_cpus - 1 if self.has_strays else -1

    @property
    def stray_offset(self) -> int:
        """Offset of the CpuLine of the strays' part, the last."""
        return self.cpu_lines_offset + (self.nr_cpus - 1) * self.cpu_bytes

    @property
    def segment_bytes(self) -> int:
        """Size of the whole segment."""
        return self.cpu_lines_offset + self.nr_cpus * self.cpu_bytes

    @property
    def room(self) -> int:
        """What the control page holds for this ring while it records."""
        if self.mode != layout.MODE_DISCARD:
            return layout.NO_LIMIT
        return self.capacity - layout.STRAYS * self.has_strays


def read_geometry(memory: RingMemory) -> Geometry:
    """The geometry that a ring's header states. Raises ValueError when it cannot be true."""
    return geometry_of(memory.bytes[: layout.HEADER_BYTES].tobytes(), len(memory))


def geometry_of(page: bytes, count: int) -> Geometry:
    """The geometry that the header page of a ring of `count` bytes states. Raises as above."""
    header = np.frombuffer(page, layout.HEADER_DTYPE, count=1)[0]
    geometry = Geometry(
        int(header["nr_cpus"]), int(header["capacity"]), int(header["record_bytes"]),
        int(header["mode"]), int(header["clock"]), bool(header["has_strays"]),
    )  # fmt: skip
    if (
        header["magic"] != layout.MAGIC
        or header["version"] != layout.VERSION
        or geometry.record_bytes not in (16, 24)
        or geometry.clock >= len(layout.CLOCK_NAMES)
        or geometry.capacity.bit_count() != 1
        or geometry.capacity > _LARGEST_CAPACITY
        or not 0 < geometry.nr_cpus < 1 << 16
        or geometry.segment_bytes > count
    ):
        raise ValueError("this is no ring of a known version")
    return geometry


def is_formatted(start: bytes) -> bool:
    """Whether memory that begins with these bytes has been made a ring of."""
    return any(start[: layout.HEADER_DTYPE["magic"].itemsize])


class RingBuffer:
    """The shared memory of a ring; `lines`, `tails` and `records` are numpy views of it."""

    def __init__(self, memory: RingMemory, geometry: Geometry) -> None:
        self.memory = memory
        self.geometry = geometry
        g = geometry
        data = memory.bytes
        parts = (g.nr_cpus,), (g.cpu_bytes,)
        self.lines = np.ndarray(parts[0], layout.CPU_LINE_DTYPE, data, g.cpu_lines_offset, parts[1])
        self.tails = np.ndarray(parts[0], layout.TAIL_LINE_DTYPE, data, g.tails_offset, parts[1])
        dtype = layout.record_dtype(g.record_bytes)
        self.records = [
            np.frombuffer(
                data, dtype, count=g.capacity, offset=g.records_offset + cpu * g.cpu_bytes
            )
            for cpu in range(g.nr_cpus)
        ]

    def format(self, address: int, room_address: int) -> None:
        """Write the header and the first positions; `address` is where the target has it."""
        g = self.geometry
        header = np.zeros(1, layout.HEADER_DTYPE)
        for name, value in {
            "magic": layout.MAGIC, "version": layout.VERSION,
            "header_bytes": layout.HEADER_BYTES, "record_bytes": g.record_bytes,
            "nr_cpus": g.nr_cpus, "capacity": g.capacity,
            "cpu_lines_offset": g.cpu_lines_offset, "tails_offset": g.tails_offset,
            "records_offset": g.records_offset, "cpu_bytes": g.cpu_bytes,
            "segment_bytes": g.segment_bytes, "mode": g.mode, "clock": g.clock,
            "room_address": room_address, "address": address, "has_strays": g.has_strays,
        }.items():  # fmt: skip
            header[name] = value
        self.lines["head"] = g.capacity
        self.tails["tail"] = g.capacity
        content, first = header.view(np.uint8), layout.HEADER_DTYPE["magic"].itemsize
        self.memory.bytes[first : header.nbytes] = content[first:]
        self.memory.bytes[:first] = content[:first]  # the last

    def write_pairs(self, pairs: Sequence[ClockPair]) -> None:
        """Keep the first and the last of some moments in the header, for who reads the ring when
        this process is gone."""
        first, last = min(pairs), max(pairs)
        kept = self._header["pairs"][0]
        kept[0], kept[1] = tuple(first), tuple(last)

    @property
    def pairs(self) -> list[ClockPair]:
        """The moments that the header keeps, at most two."""
        kept = [ClockPair(*pair) for pair in self._header["pairs"][0].tolist()]
        return sorted({pair for pair in kept if pair.tsc and max(pair) < 1 << 63})

    @property
    def _header(self) -> NDArray[np.void]:
        return np.frombuffer(self.memory.bytes, layout.HEADER_DTYPE, 1)

    def populate(self) -> None:
        """Touch every page from here, so that the memory is ours and no writer has to wait."""
        g = self.geometry
        self.memory.bytes[g.cpu_lines_offset : g.segment_bytes : 4096] = 0
