"""Reading the ring: committed records in order of position, every loss counted.

The ring is shared with the target and untrusted: a head that cannot be true ends the reading of
that CPU with an error, never a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.errors import RegionError
from fentry.ring import layout
from fentry.ring.buffer import RingBuffer

BATCH_RECORDS = 65536
"""Most records of a batch: 1 to 1.5 MB, which are in the processor's second cache when they are
looked at, and still when they are written; and their places are free again that much sooner."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Committed records at consecutive positions of one CPU: a view of the ring, valid until
    the next batch is asked for."""

    cpu: int
    first: int
    records: NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Stats:
    """What became of the calls, by CPU: recorded (read so far), dropped_events (ring full),
    overrun (overwritten before they were read), incomplete (reserved, never committed)."""

    recorded: NDArray[np.uint64]
    dropped_events: NDArray[np.uint64]
    overrun: NDArray[np.uint64]
    incomplete: NDArray[np.uint64]

    @property
    def total(self) -> int:
        """All calls that reached the ring."""
        return int(
            self.recorded.sum() + self.dropped_events.sum() + self.overrun.sum()
            + self.incomplete.sum()
        )  # fmt: skip


class Reader:
    """The one consumer of a ring. Its place is the ring's tails, so another can go on."""

    def __init__(self, buffer: RingBuffer) -> None:
        self._buffer = buffer
        self._overwrites = buffer.geometry.mode == layout.MODE_OVERWRITE
        self._counts = buffer.geometry.clock != layout.CLOCK_TSC
        nr_cpus = buffer.geometry.nr_cpus
        self._recorded = np.zeros(nr_cpus, np.uint64)
        self._overrun = np.zeros(nr_cpus, np.uint64)
        self._incomplete = np.zeros(nr_cpus, np.uint64)
        self._latest = np.zeros(nr_cpus, np.uint64)
        self._differences = np.empty(BATCH_RECORDS, np.uint32)

    def consume(self, *, skip_incomplete: bool = False) -> Iterator[Batch]:
        """What has been committed up to now, each record once, up to BATCH_RECORDS at a time.

        A record that was reserved and not committed holds back those behind it, until
        `skip_incomplete` says that nobody will commit any more (proof: no thread is in a
        trampoline).  A batch counts as read when the next one is asked for.
        """
        damage: RegionError | None = None
        for cpu in range(self._buffer.geometry.nr_cpus):
            try:
                if self._overwrites:
                    yield from self._consume_overwritten(cpu)
                else:
                    yield from self._consume_kept(cpu, skip_incomplete)
            except RegionError as error:  # the other CPUs' are whole
                damage = damage or error
        if damage is not None:
            raise damage

    def held_back(self) -> bool:
        """Whether a reserved record holds back others behind it."""
        return any(self._is_awaited(cpu, 2) for cpu in range(self._buffer.geometry.nr_cpus))

    def awaited(self) -> list[int]:
        """The CPUs whose next record is reserved and not committed."""
        return [cpu for cpu in range(self._buffer.geometry.nr_cpus) if self._is_awaited(cpu, 1)]

    def heads(self) -> list[int]:
        """Up to where places are reserved, by CPU."""
        return [self._span(cpu)[1] for cpu in range(self._buffer.geometry.nr_cpus)]

    def resolve(self, heads: Sequence[int]) -> None:
        """Go on behind records before `heads` that hold back others: nobody will commit them (proof
        needed, from after the heads were read)."""
        for cpu in range(self._buffer.geometry.nr_cpus):
            tail, head = self._span(cpu)[0], heads[cpu]
            while tail < head and not self._committed(cpu, tail, tail + 1):
                self._incomplete[cpu] += np.uint64(1)
                tail += 1
                self._buffer.tails["tail"][cpu] = tail

    def fill(self) -> float:
        """How full the fullest CPU's buffer is, 0 to 1."""
        lines, tails = self._buffer.lines, self._buffer.tails
        used = (lines["head"] - tails["tail"]).max()
        return min(1.0, float(used) / self._buffer.geometry.capacity)

    @property
    def stats(self) -> Stats:
        """The counts up to now."""
        return Stats(
            self._recorded.copy(), self._buffer.lines["dropped"].astype(np.uint64),
            self._overrun.copy(), self._incomplete.copy(),
        )  # fmt: skip

    def _is_awaited(self, cpu: int, least: int) -> bool:
        # Whether the first of at least so many reserved records is not committed.
        tail, head = self._span(cpu)
        return head - tail >= least and not self._committed(cpu, tail, tail + 1)

    def _span(self, cpu: int) -> tuple[int, int]:
        head = int(self._buffer.lines["head"][cpu])
        tail = int(self._buffer.tails["tail"][cpu])
        if head < tail or (not self._overwrites and head - tail > self._buffer.geometry.capacity):
            raise RegionError(
                f"the ring of CPU {cpu} is damaged: head {head}, tail {tail}",
                cause="the target wrote over it",
            )
        return tail, head

    def _committed(self, cpu: int, start: int, end: int) -> int:
        # How many records from position start on are committed (start..end do not wrap).
        capacity = self._buffer.geometry.capacity
        index = start & (capacity - 1)
        words = self._buffer.records[cpu]["word"][index : index + (end - start)]
        wanted = (start // capacity) & (layout.LAPS - 1)
        # With the wanted lap taken away only a tid is left. Into memory that is there, and without
        # a mask: half of what it costs to compare the laps.
        rest = np.subtract(
            words, np.uint32(wanted << layout.TID_BITS), out=self._differences[: end - start]
        )
        if int(rest.max()) <= layout.TID_MASK:
            return end - start
        return int((rest > layout.TID_MASK).argmax())

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        capacity = self._buffer.geometry.capacity
        while start < end:
            stop = min(end, (start // capacity + 1) * capacity, start + BATCH_RECORDS)
            yield start, stop
            start = stop

    def _view(self, cpu: int, start: int, count: int) -> NDArray[np.void]:
        index = start & (self._buffer.geometry.capacity - 1)
        return self._buffer.records[cpu][index : index + count]

    def _consume_kept(self, cpu: int, skip_incomplete: bool) -> Iterator[Batch]:
        tail, head = self._span(cpu)
        for start, end in self._pieces(tail, head):
            while start < end:
                count = self._committed(cpu, start, end)
                if count:
                    records = self._view(cpu, start, count)
                    if self._counts:  # their place is their time: nobody has stored it
                        records["time"] = np.arange(start, start + count, dtype=np.uint64)
                    yield Batch(cpu, start, records)
                    self._recorded[cpu] += np.uint64(count)
                    start += count
                    self._buffer.tails["tail"][cpu] = start
                if start < end:
                    if not skip_incomplete:
                        return
                    self._incomplete[cpu] += np.uint64(1)
                    start += 1
                    self._buffer.tails["tail"][cpu] = start

    def _is_late(
        self, cpu: int, times: NDArray[np.uint64], good: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        # A writer that was held up for a whole lap stores its old time over a newer record, and
        # its own lap only after that: time follows position, so such a record shows itself.
        known = np.maximum.accumulate(np.where(good, times, np.uint64(0)))
        before = np.concatenate([self._latest[cpu : cpu + 1], known[:-1]])
        before = np.maximum(before, self._latest[cpu])
        if len(known):
            self._latest[cpu] = max(self._latest[cpu], known[-1])
        late: NDArray[np.bool_] = times < before
        return late

    def _consume_overwritten(self, cpu: int) -> Iterator[Batch]:
        # Copies, then looks again how far the writers have come: what they may have touched
        # meanwhile is not shown.
        capacity = self._buffer.geometry.capacity
        tail, head = self._span(cpu)
        start = max(tail, head - capacity)
        copies = [
            (at, self._view(cpu, at, end - at).copy()) for at, end in self._pieces(start, head)
        ]
        valid = max(start, int(self._buffer.lines["head"][cpu]) - capacity)
        self._overrun[cpu] += np.uint64(min(valid, head) - tail)
        for at, records in copies:
            skip = max(0, valid - at)
            wanted = (at // capacity) & (layout.LAPS - 1)
            good = records["word"] >> layout.TID_BITS == wanted
            good[:skip] = False
            good &= ~self._is_late(cpu, records["time"], good)
            edges = np.flatnonzero(np.diff(good, prepend=False, append=False))
            self._incomplete[cpu] += np.uint64(int((~good[skip:]).sum()))
            for first, last in edges.reshape(-1, 2).tolist():
                yield Batch(cpu, at + first, records[first:last])
                self._recorded[cpu] += np.uint64(last - first)
                self._buffer.tails["tail"][cpu] = at + last
        self._buffer.tails["tail"][cpu] = head
