"""C functions in the target: their code in an arena, their data in a segment of their own.

Like trampolines they are parked when nobody wants them any more, and freed in a later stop on
proof that nobody is in them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.ops import Flags, Ops
from fentry.errors import BadInput, RegionError
from fentry.process.maps import find_gap, read_maps
from fentry.process.target import Halt, Target, cpu_flags
from fentry.region.layout import DATA_DTYPE, DATA_HEADER_BYTES, GUARD_BYTES, SITE_DTYPE, Kind
from fentry.region.region import Region, Segment
from fentry.trampolines.body import CallBody
from fentry.trampolines.native import ALIGNMENT, LONGEST_BYTES
from fentry.x86.calls import CodeTraits, Vectors

_IP_OFFSET = SITE_DTYPE.fields["ip"][1]  # type: ignore[index]
_MOST_PRIVATE_BYTES = 1 << 20
_NEAR_BYTES = 1 << 30


class CodeMemory(Protocol):
    """Where executable memory comes from: the dispatcher's arenas."""

    def take_code(self, halt: Halt, count: int) -> int: ...

    def give_code(self, address: int, count: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Placed:
    """A C function in the target; addresses are the target's."""

    segment: Segment
    code: int
    code_bytes: int
    entry: int
    flags: Flags
    vectors: Vectors
    leaves: bool
    private: int
    private_bytes: int

    @property
    def span(self) -> tuple[int, int]:
        """Its code: from, and up to."""
        return self.code, self.code + self.code_bytes


class Natives:
    """The C functions of one region, by the id of their ops."""

    def __init__(self, target: Target, region: Region) -> None:
        self._target = target
        self._region = region
        self._placed: dict[int, Placed] = {}
        self._parked: set[int] = set()
        self._free: list[Segment] = []
        self._guard = 0

    @property
    def has_parked(self) -> bool:
        """Whether a function is to be freed, once nobody is in it."""
        return bool(self._parked)

    # 1. Coming

    def place(self, halt: Halt, ops: Ops, memory: CodeMemory) -> None:
        """Write the function of ops into the target, with data and private memory of its own.

        Raises BadInput when its private memory is too large, RegionError when there is no room.
        """
        function = ops.function
        assert function is not None
        if len(ops.private) > _MOST_PRIVATE_BYTES:
            raise BadInput(f"{_MOST_PRIVATE_BYTES} bytes of private memory are the most")
        missing = function.traits.features - cpu_flags()
        if missing:
            raise BadInput(f"{function.name} needs {', '.join(sorted(missing))}, not had here")
        if Flags.RECURSION in ops.flags:
            if "cx16" not in cpu_flags():
                raise BadInput("RECURSION needs cmpxchg16b, which this processor does not have")
            self._find_guard(halt)
        private_offset = DATA_HEADER_BYTES + _aligned(len(function.data))
        total = private_offset + len(ops.private)
        code = memory.take_code(halt, len(function.code))
        try:
            segment = self._data_segment(halt, code, total)
        except BaseException:
            memory.give_code(code, len(function.code))
            raise
        image, data = function.placed(code, segment.address + DATA_HEADER_BYTES)
        header = np.zeros((), DATA_DTYPE)
        header["private"] = segment.address + private_offset
        header["private_bytes"] = len(ops.private)
        header["flags"], header["id"] = ops.flags, ops.id
        header["code"], header["code_bytes"] = code, len(image)
        header["entry"] = function.entry
        header["leaves"] = function.traits.leaves
        header["vectors"] = _vectors(function.traits, ops.flags)
        self._target.memory.write(code, image)
        whole = header.tobytes() + data.ljust(private_offset - DATA_HEADER_BYTES, b"\0")
        self._target.memory.write(segment.address, whole + ops.private)
        self._region.set_name(segment, function.name, instance=ops.id)
        self._placed[ops.id] = _read(header, segment)

    def _data_segment(self, halt: Halt, code: int, total: int) -> Segment:
        # One that was used before, or a new one: near enough for distances of 32 bits.
        for segment in self._free:
            if segment.bytes >= total and abs(segment.address - code) < _NEAR_BYTES:
                self._free.remove(segment)
                return segment
        address = find_gap(read_maps(self._target.pid), total, code, code + LONGEST_BYTES)
        return self._region.add(halt.remote, Kind.DATA, total, address=address)

    def adopt(self) -> None:
        """Take over what a controller left. Raises RegionError where it makes no sense."""
        code = self._region.of_kind(Kind.CODE)
        for segment in self._region.of_kind(Kind.DATA):
            piece = self._target.memory.read(segment.address, DATA_HEADER_BYTES)
            row = np.frombuffer(piece, DATA_DTYPE)[0]
            placed = _read(row, segment)
            low, high = placed.span
            sound = (
                any(s.address <= low and high <= s.end for s in code)
                and 0 <= placed.entry - low < placed.code_bytes <= LONGEST_BYTES
                and segment.address <= placed.private
                and placed.private + placed.private_bytes <= segment.end
            )
            if not placed.code:
                self._free.append(segment)
            elif sound:
                self._placed[int(row["id"])] = placed
            else:
                raise RegionError(
                    f"the data of a C function at {segment.address:#x} is damaged",
                    cause="the target wrote over it",
                    remedy=f"fentry detach -p {self._target.pid}",
                )

    def _find_guard(self, halt: Halt) -> None:
        if not self._guard:
            found = self._region.of_kind(Kind.GUARD)
            segment = found[0] if found else self._region.add(halt.remote, Kind.GUARD, GUARD_BYTES)
            self._guard = segment.address

    # 2. Being there

    def body(self, number: int) -> CallBody:
        """What a trampoline does for the ops `number`."""
        placed = self._placed[number]
        header = placed.segment.address
        guarded = Flags.RECURSION in placed.flags
        if guarded and not self._guard:
            self._guard = self._region.of_kind(Kind.GUARD)[0].address
        registry = self._region.registry
        return CallBody(
            function=placed.entry,
            ops=header,
            in_flight=header + _offset("in_flight"),
            dropped=header + _offset("dropped"),
            ips=registry.address + int(registry.header["sites_offset"]) + _IP_OFFSET,
            stride=SITE_DTYPE.itemsize,
            vectors=placed.vectors,
            redirects=Flags.IPMODIFY in placed.flags,
            guard=self._guard if guarded else 0,
        )

    def private(self, number: int) -> bytes:
        """The private memory of ops as it is now."""
        placed = self._placed[number]
        return self._target.memory.read(placed.private, placed.private_bytes)

    def dropped(self, number: int) -> int:
        """Calls that the guard has skipped."""
        placed = self._placed[number]
        return self._target.memory.read_u64(placed.segment.address + _offset("dropped"))

    @property
    def ids(self) -> set[int]:
        """Ids of all ops that have a function here, also of parked ones."""
        return set(self._placed)

    # 3. Going

    def park(self, number: int) -> None:
        """Nobody wants the function any more; it is freed when that is safe."""
        if number in self._placed:
            self._parked.add(number)

    @property
    def parked_bytes(self) -> int:
        """Code of functions that nobody wants any more and that are not yet free."""
        return sum(self._placed[number].code_bytes for number in self._parked)

    def sweep(self, halt: Halt, called: Collection[int], memory: CodeMemory) -> None:
        """Free parked functions that no trampoline calls (`called`: ids) and nobody runs."""
        for number in sorted(self._parked - set(called)):
            placed = self._placed[number]
            low, high = placed.span
            if any(low <= rip < high for rip in halt.rips()) or self.is_running(halt, [number]):
                continue
            # It stays mapped, for the next one: whoever dies between munmap(2) and the row of the
            # registry would leave a row that claims what is the program's by then.
            self._target.memory.write(placed.segment.address, bytes(DATA_HEADER_BYTES))
            self._free.append(placed.segment)
            memory.give_code(placed.code, placed.code_bytes)
            del self._placed[number]
            self._parked.discard(number)

    def is_running(
        self, halt: Halt, numbers: Collection[int], span: tuple[int, int] | None = None
    ) -> bool:
        """Whether a call of these functions may be under way, though no rip points into our code:
        its count says so, and some stack leads back into their code, or into `span`, that of a
        trampoline. One that calls through pointers may be on a stack that is no thread's."""
        known = [self._placed[number] for number in numbers if number in self._placed]
        away = [placed for placed in known if _in_flight(halt, placed.segment)]
        if not away:
            return False
        spans = [placed.span for placed in away] if span is None else [span]
        return any(placed.leaves for placed in away) or halt.stacks_lead_into(spans)


def functions_run(halt: Halt, region: Region) -> bool:
    """Whether any C function of a region may be under way, judged from the region alone."""
    away = [segment for segment in region.of_kind(Kind.DATA) if _in_flight(halt, segment)]
    if not away:
        return False
    leaves = (halt.target.memory.read_some(s.address + _offset("leaves"), 4) for s in away)
    return any(map(any, leaves)) or halt.stacks_lead_into(
        [(s.address, s.end) for s in region.of_kind(Kind.CODE)]
    )


def _vectors(traits: CodeTraits, flags: Flags) -> Vectors:
    # What it calls through pointers may use all of them, whatever it does itself.
    least = Vectors.XMM if Flags.SAVE_REGS in flags else Vectors.NONE
    return max(traits.vectors, Vectors.ALL if traits.leaves else least)


def _in_flight(halt: Halt, segment: Segment) -> bool:
    return any(halt.target.memory.read_some(segment.address + _offset("in_flight"), 8))


def _read(row: NDArray[np.void], segment: Segment) -> Placed:
    return Placed(
        segment,
        int(row["code"]),
        int(row["code_bytes"]),
        int(row["code"]) + int(row["entry"]),
        Flags(int(row["flags"])),
        Vectors(min(int(row["vectors"]), Vectors.ALL)),
        bool(row["leaves"]),
        int(row["private"]),
        int(row["private_bytes"]),
    )


def _offset(name: str) -> int:
    offset: int = DATA_DTYPE.fields[name][1]  # type: ignore[index]
    return offset


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
