"""What was counted and recorded so far, read from the memory of a traced process by anybody.

Not the reader of the ring: nothing is consumed, the figures are those of one moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.process.memory import Memory
from fentry.region.layout import Kind, room_offset
from fentry.region.region import Region, Segment
from fentry.ring import layout as ring


@dataclass(frozen=True, slots=True)
class RingTally:
    """A ring of an instance: calls that got a place (`records`), of these not read yet (`unread`),
    calls that found it full (`dropped`); bytes of a record, records a CPU has room for; what its
    records are dated by; number of the controller whose it is."""

    instance: int
    name: str
    records: int
    unread: int
    dropped: int
    record_bytes: int
    capacity: int
    overwrites: bool
    tracing_on: bool
    clock: str
    owner: int = 0


def ring_tallies(region: Region) -> list[RingTally]:
    """The rings of a region, by number of their instance; left out are damaged ones, and those
    whose maker died before they had a size."""
    found = [_tally(region.memory, s, region.switches) for s in region.of_kind(Kind.RING)]
    return sorted((one for one in found if one is not None), key=lambda one: one.instance)


def _tally(memory: Memory, segment: Segment, switches: int) -> RingTally | None:
    page = memory.read_some(segment.address, ring.HEADER_BYTES)
    if len(page) < ring.HEADER_BYTES:
        return None
    header = np.frombuffer(page, ring.HEADER_DTYPE, count=1)[0]
    nr_cpus, capacity = int(header["nr_cpus"]), int(header["capacity"])
    tails_at, cpu_bytes = int(header["tails_offset"]), int(header["cpu_bytes"])
    end = tails_at + (nr_cpus - 1) * cpu_bytes + ring.LINE_BYTES
    if header["magic"] != ring.MAGIC or end > segment.bytes or tails_at < ring.HEADER_BYTES:
        return None

    def of_parts(offset: int, dtype: np.dtype[np.void]) -> NDArray[np.void]:
        places = range(segment.address + offset, segment.address + segment.bytes, cpu_bytes)
        found = b"".join(memory.read(at, ring.LINE_BYTES) for at in places[:nr_cpus])
        return np.frombuffer(found, dtype)

    # The tails first: what a reader takes meanwhile does not make it negative.
    tails = of_parts(tails_at, ring.TAIL_LINE_DTYPE)
    lines = of_parts(int(header["cpu_lines_offset"]), ring.CPU_LINE_DTYPE)
    unread = np.minimum(lines["head"] - tails["tail"], np.uint64(capacity))
    room = memory.read_u64(switches + room_offset(segment.instance))
    return RingTally(
        instance=segment.instance,
        name=segment.name,
        records=int((lines["head"] - np.uint64(capacity)).sum()),
        unread=int(unread.sum()),
        dropped=int(lines["dropped"].sum()),
        record_bytes=int(header["record_bytes"]),
        capacity=capacity,
        overwrites=int(header["mode"]) == ring.MODE_OVERWRITE,
        tracing_on=room != 0,
        clock=ring.CLOCK_NAMES[min(int(header["clock"]), len(ring.CLOCK_NAMES) - 1)],
        owner=segment.owner,
    )


def hits(region: Region, slot: int, owner: int) -> NDArray[np.uint64]:
    """Calls counted in one slot of a controller's counters, by row of the site:
    uint64[sites_used]."""
    header = region.registry.header
    slot_bytes, used = int(header["site_rows"]) * 8, int(header["sites_used"])
    total = np.zeros(used, np.uint64)
    for segment in [s for s in region.of_kind(Kind.COUNTERS) if s.owner == owner]:
        parts = int(header["nr_cpus"]) + 1  # the last one is for threads without rseq
        part_bytes = segment.bytes // parts // slot_bytes * slot_bytes
        for part in range(parts):
            at = part * part_bytes + slot * slot_bytes
            if at + used * 8 > segment.bytes:
                break
            total += np.frombuffer(region.memory.read(segment.address + at, used * 8), "<u8")
    return total
