"""An instance (trace_array): a ring of its own, and the ops that record into it.

Every session has a top instance; more of them record at the same time, each with its own functions,
size and mode of its ring, and its own tracing_on, which no trampoline tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from fentry.dispatch.controllers import record_body
from fentry.dispatch.ops import Ops
from fentry.errors import BadInput, RegionError, StopTimeout
from fentry.process.remote import RemoteError
from fentry.process.shared import SharedMemory
from fentry.process.stub import Call
from fentry.process.target import Halt, Target
from fentry.region import layout as region_layout
from fentry.region.layout import Kind
from fentry.region.region import Region, Segment
from fentry.ring.buffer import Geometry, RingBuffer, read_geometry
from fentry.ring.clock import ClockPair
from fentry.ring.layout import CLOCK_NAMES, CLOCK_TSC, HEADER_BYTES, MODE_OVERWRITE
from fentry.ring.reader import Batch, Reader, Stats
from fentry.trampolines.body import RecordBody, Traits
from fentry.trampolines.record import has_sections

TOP = 0
LONGEST_NAME = 24  # bytes, in the row of its ring

_HELD_BACK_S = 0.25
_NR_PRCTL, _PR_GET_TSC, _PR_TSC_SIGSEGV = 157, 25, 2  # include/uapi/linux/prctl.h


class Host(Protocol):
    """What an instance needs of its session."""

    target: Target
    ops: dict[int, Ops]

    @property
    def region(self) -> Region: ...

    def register(self, ops: Ops) -> Ops: ...

    def unregister(self, ops: Ops) -> None: ...

    def owned(self, *, current: bool = True) -> AbstractContextManager[Halt]: ...

    def has_writers(self) -> bool: ...

    def nobody_writes(self) -> bool: ...


class Instance:
    """Number, name and geometry of one ring; the ring is mapped when the first ops records.

    Made by Session.instance(); `name` is "" for the top one. No two of all controllers have the
    same `number`.
    """

    def __init__(self, host: Host, number: int, name: str, geometry: Geometry) -> None:
        self.number = number
        self.name = name
        self.geometry = geometry
        self._host = host
        self._segment: Segment | None = None
        self._reader: Reader | None = None
        self._ring: RingBuffer | None = None
        self._is_on = True
        self._held_since = 0.0

    # 1. What users do

    def register(self, ops: Ops) -> Ops:
        """Register ops that record into this instance. Raises as Session.register."""
        ops.instance = self.number
        return self._host.register(ops)

    def unregister(self, ops: Ops) -> None:
        """Take ops of this instance away. Raises as Session.unregister."""
        self._host.unregister(ops)

    @property
    def ops(self) -> list[Ops]:
        """The ops that are registered here."""
        return [ops for ops in self._host.ops.values() if ops.instance == self.number]

    @property
    def tracing_on(self) -> bool:
        """Whether calls are recorded. While it is False they are neither recorded nor dropped;
        the trampolines are the same. Set in a stop of microseconds."""
        return self._is_on

    @tracing_on.setter
    def tracing_on(self, on: bool) -> None:
        self._is_on = on
        if self._ring is not None:
            with self._host.owned(current=False) as halt:
                self._write_room(halt)

    def switch_on(self, halt: Halt) -> None:
        """Record again, after a detach that its controller did not live to finish."""
        self._is_on = True
        self._write_room(halt)

    def consume(self, *, final: bool = False) -> Iterator[Batch]:
        """Records committed up to now, by CPU and position; each is given once.

        `final` skips what was reserved and never committed: after detach, or when the target
        has died.
        """
        yield from self.read(final=final)
        self.settle()

    def read(self, *, final: bool = False) -> Iterator[Batch]:
        """What consume() gives, without settle(): nothing but the shared memory is looked at, so
        that any thread may do it, one at a time."""
        if self._reader is not None:
            yield from self._reader.consume(skip_incomplete=final)

    @property
    def awaited_cpus(self) -> list[int]:
        """The CPUs whose next record has its place and is not there yet."""
        return self._reader.awaited() if self._reader is not None else []

    def settle(self) -> None:
        """Go on behind a record that is never completed, because a handler left a trampoline by
        longjmp: if it holds back others for long, once a stop proves that nobody is in our code."""
        if self._reader is None or not self._reader.held_back():
            self._held_since = 0.0
            return
        now = time.monotonic()
        self._held_since = self._held_since or now
        if now - self._held_since < _HELD_BACK_S or not self._host.has_writers():
            return
        self._held_since = 0.0
        heads = self._reader.heads()  # whoever has a place before these is now proved to be away
        # A stop that would be too long: it is tried again later, and nothing is lost meanwhile.
        with suppress(StopTimeout):
            if self._host.nobody_writes():
                self._reader.resolve(heads)

    @property
    def stats(self) -> Stats | None:
        """What became of the recorded calls; None while no ops has recorded."""
        return self._reader.stats if self._reader is not None else None

    @property
    def fill(self) -> float:
        """How full the ring is, 0 to 1."""
        return self._reader.fill() if self._reader is not None else 0.0

    @property
    def clock(self) -> str:
        """What its records are dated by: "tsc" or "percpu-counter"."""
        return CLOCK_NAMES[self.geometry.clock]

    @property
    def ring(self) -> Geometry:
        """The geometry of its ring. Raises BadInput while no ops records."""
        if self._ring is None:
            raise BadInput("no ops of this instance records")
        return self._ring.geometry

    def keep_clock(self, pairs: Sequence[ClockPair]) -> None:
        """Keep moments in the ring itself, so that its records can be dated when this process is
        gone. Raises BadInput while no ops records."""
        if self._ring is None:
            raise BadInput("no ops of this instance records")
        self._ring.write_pairs(pairs)

    @property
    def kept_clock(self) -> list[ClockPair]:
        """The moments that keep_clock() kept, whoever called it; at most two."""
        return self._ring.pairs if self._ring is not None else []

    def rewind(self) -> None:
        """Read the ring from its beginning again: what it still holds, also what was read before;
        what it has forgotten counts as overrun. Only where it overwrites old records (BadInput)."""
        if self._reader is None or self._ring is None or self.ring.mode != MODE_OVERWRITE:
            raise BadInput("only a ring that overwrites can be read again")
        self._ring.tails["tail"] = self._ring.geometry.capacity
        self._reader = Reader(self._ring)

    # 2. What its session does

    @property
    def segment(self) -> Segment | None:
        """Where its ring lies, once it is mapped."""
        return self._segment

    def make_ring(
        self,
        add: Callable[
            [Kind, int, int, Callable[[Halt, Segment], None]], tuple[Segment, SharedMemory]
        ],
        check: Callable[[int], None],
        traits: Traits,
    ) -> None:
        """Map the ring if it is not there. `add` maps a shared segment of (kind, bytes, instance)
        and calls its fourth argument, in one stop; `check` raises BadInput when the machine has not
        so many bytes. Without rseq in the target places are taken with a lock prefix."""
        if self._ring is not None:
            return
        if not has_sections(traits):
            self.geometry = self.geometry.locked()
        check(self.geometry.segment_bytes)
        self._segment, memory = add(
            Kind.RING, self.geometry.segment_bytes, self.number, self._begin
        )
        self._host.region.set_name(self._segment, self.name)
        ring = RingBuffer(memory, self.geometry)
        ring.populate()
        ring.format(self._segment.address, self._room)  # the last: before, nobody takes it over
        self._ring, self._reader = ring, Reader(ring)

    def take_ring(self, segment: Segment, memory: SharedMemory) -> None:
        """Go on with the ring of a dead controller. Raises RegionError when it is damaged."""
        pid = self._host.target.pid
        try:
            ring = RingBuffer(memory, read_geometry(memory))
        except ValueError as error:
            raise RegionError(
                f"the ring of process {pid} is damaged",
                cause=str(error),
                remedy=f"fentry detach -p {pid}",
            ) from error
        self._segment, self._ring, self.geometry = segment, ring, ring.geometry
        self._reader = Reader(ring)
        self._is_on = self._host.target.memory.read_u64(self._room) != 0

    @property
    def body(self) -> RecordBody:
        """What a trampoline does for an ops that records here."""
        assert self._segment is not None and self._ring is not None
        return record_body(self._host.region, self._segment, self._ring.geometry)

    @property
    def _room(self) -> int:
        # Where in the target its room is: 0 there stops recording, as in a silent child.
        return self._host.region.switches + region_layout.room_offset(self.number)

    def _begin(self, halt: Halt, segment: Segment) -> None:
        # Not where the magic is: who dies here leaves a ring that is not formatted.
        scratch = segment.address + HEADER_BYTES - 8
        if self.geometry.clock == CLOCK_TSC and not _may_read_clock(halt, scratch):
            self._host.region.drop(halt.remote, [segment])
            raise BadInput(
                f"process {self._host.target.pid} must not read the time stamp counter",
                cause="it has switched rdtsc off (PR_SET_TSC), and would get SIGSEGV",
                remedy="--clock percpu-counter, or fentry stat, which counts without a clock",
            )
        self._write_room(halt)

    def _write_room(self, halt: Halt) -> None:
        room = self.geometry.room if self._is_on else 0
        halt.target.memory.write_u64(self._room, room)


def _may_read_clock(halt: Halt, scratch: int) -> bool:
    # Asked of one thread: the others have it from who made them. `scratch` is zero memory. A kernel
    # that does not know the question cannot switch it off either.
    memory = halt.target.memory
    with suppress(RemoteError):
        halt.remote.run([Call(_NR_PRCTL, (_PR_GET_TSC, scratch), name="prctl")])
    mode = memory.read_u64(scratch)
    memory.write_u64(scratch, 0)
    return mode != _PR_TSC_SIGSEGV
