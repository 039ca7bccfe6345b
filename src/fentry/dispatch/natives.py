"""C functions in the target: their code in an arena, their data in a segment of their own.

Like trampolines they are parked when nobody wants them any more, and freed in a later stop on
proof that nobody is in them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.ops import Flags, Ops
from fentry.errors import BadInput, RegionError
from fentry.process.maps import find_gap, read_maps
from fentry.process.target import Halt, Target, cpu_flags
from fentry.region.layout import DATA_DTYPE, DATA_HEADER_BYTES, GUARD_BYTES, SITE_DTYPE, Kind
from fentry.region.region import Region, Segment
from fentry.trampolines.body import CallBody, DirectBody
from fentry.trampolines.native import ALIGNMENT, LONGEST_BYTES
from fentry.x86.calls import CodeTraits, Vectors

_IP_OFFSET = SITE_DTYPE.fields["ip"][1]  # type: ignore[index]
_MOST_PRIVATE_BYTES = 1 << 20
_NEAR_BYTES = 1 << 30


class CodeMemory(Protocol):
    """Where executable memory comes from: the dispatcher's arenas."""

    def take_code(self, halt: Halt, count: int, near: int = 0) -> int: ...

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
    calls: bool
    private: int
    private_bytes: int

    @property
    def span(self) -> tuple[int, int]:
        """Its code: from, and up to."""
        return self.code, self.code + self.code_bytes


class Natives:
    """The C functions of one region, by the id of their ops."""

    def __init__(self, target: Target, region: Region, owner: int) -> None:
        """`owner` is the number of the controller that makes and frees functions here."""
        self._target = target
        self._region = region
        self._owner = owner
        self._placed: dict[int, Placed] = {}
        self._parked: set[int] = set()
        self._free: list[Segment] = []
        self._guard = 0

    @property
    def has_parked(self) -> bool:
        """Whether a function is to be freed, once nobody is in it."""
        return bool(self._parked)

    # 1. Coming

    def place(self, halt: Halt, ops: Ops, memory: CodeMemory, near: int = 0) -> None:
        """Write the function of ops into the target, with data and private memory of its own;
        its code where text at the address `near` reaches it by five bytes, if that is stated.

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
        code = memory.take_code(halt, len(function.code), near)
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
        header["leaves"], header["calls"] = function.traits.leaves, function.traits.calls
        header["vectors"] = _vectors(function.traits, ops.flags)
        self._target.memory.write(code, image)
        whole = header.tobytes() + data.ljust(private_offset - DATA_HEADER_BYTES, b"\0")
        self._target.memory.write(segment.address, whole + ops.private)
        self._region.set_name(segment, function.name, instance=ops.id, owner=self._owner)
        self._placed[ops.id] = _read(header, replace(segment, owner=self._owner))

    def _data_segment(self, halt: Halt, code: int, total: int) -> Segment:
        # One that was used before, or a new one: near enough for distances of 32 bits.
        for segment in self._free:
            if segment.bytes >= total and abs(segment.address - code) < _NEAR_BYTES:
                self._free.remove(segment)
                return segment
        address = find_gap(read_maps(self._target.pid), total, code, code + LONGEST_BYTES)
        return self._region.add(halt.remote, Kind.DATA, total, address=address, owner=self._owner)

    def adopt(self) -> None:
        """Take over what a controller left. Raises RegionError where it makes no sense."""
        code = self._region.of_kind(Kind.CODE)
        for segment in self._region.of_kind(Kind.DATA):
            row = self._header(segment)
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
                self._placed |= dict.fromkeys([int(row["id"]), *_aliases(row)], placed)
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

    def alias(self, number: int, other: int) -> None:
        """Let the ops `other` have the function of `number` as well, inside a stop: what one is to
        become. Raises BadInput when it had too many ids that trampolines in use still have."""
        placed = self._placed[number]
        row = self._header(placed.segment)
        free = np.flatnonzero(row["aliases"] == 0)
        if not len(free):
            raise BadInput(
                "these ops were changed too often",
                cause="calls of its function are under way",
                remedy="try again",
            )
        self._write_alias(placed.segment, int(free[0]), other)
        self._placed[other] = placed

    def _header(self, segment: Segment) -> NDArray[np.void]:
        piece = self._target.memory.read(segment.address, DATA_HEADER_BYTES)
        row: NDArray[np.void] = np.frombuffer(piece, DATA_DTYPE)[0]
        return row

    def _write_alias(self, segment: Segment, slot: int, number: int) -> None:
        place = segment.address + _offset("aliases") + 4 * slot
        self._target.memory.write(place, number.to_bytes(4, "little"))

    # 2. Being there

    def body(self, number: int, threads: int = 0) -> CallBody | DirectBody:
        """What a trampoline does for the ops `number`; `threads` is its table, 0 for all."""
        placed = self._placed[number]
        if Flags.DIRECT in placed.flags:
            return DirectBody(placed.entry)
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
            threads=threads,
        )

    def direct(self, chosen: Collection[int]) -> bool:
        """Whether one of these ops is DIRECT."""
        return any(Flags.DIRECT in self._placed[one].flags for one in chosen if one in self._placed)

    def modifies(self, chosen: Collection[int]) -> bool:
        """Whether one of these ops could change what a function does."""
        flags = (self._placed[one].flags for one in chosen if one in self._placed)
        return any(one & (Flags.IPMODIFY | Flags.DIRECT) for one in flags)

    def data(self, number: int) -> bytes:
        """The writable data of the function of ops as it is now, padded to 64 bytes."""
        placed = self._placed[number]
        start = placed.segment.address + DATA_HEADER_BYTES
        return self._target.memory.read(start, placed.private - start)

    def private(self, number: int) -> bytes:
        """The private memory of ops as it is now."""
        placed = self._placed[number]
        return self._target.memory.read(placed.private, placed.private_bytes)

    def dropped(self, number: int) -> int:
        """Calls that the guard has skipped."""
        placed = self._placed[number]
        return self._target.memory.read_u64(placed.segment.address + _offset("dropped"))

    def name_segment(self, number: int) -> None:
        """Let the registry say that the function is that of the ops `number`."""
        self._region.set_instance(self._placed[number].segment, number)

    @property
    def ids(self) -> set[int]:
        """Ids of all ops that have a function here, also of parked ones."""
        return set(self._placed)

    @property
    def own_ids(self) -> set[int]:
        """Those of this controller."""
        return {n for n, one in self._placed.items() if one.segment.owner == self._owner}

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Where their code lies: (low, high)."""
        return [one.span for one in self._placed.values()]

    # 3. Going

    def park(self, number: int) -> None:
        """Nobody wants the function any more; it is freed when that is safe."""
        if number in self._placed:
            self._parked.add(number)

    def keep(self, number: int) -> None:
        """Somebody wants the function after all."""
        self._parked.discard(number)

    @property
    def parked_bytes(self) -> int:
        """Code of functions that nobody wants any more and that are not yet free."""
        wanted = {one.segment.row for n, one in self._placed.items() if n not in self._parked}
        left = {one.segment.row: one.code_bytes for one in self._placed.values()}
        return sum(count for row, count in left.items() if row not in wanted)

    def sweep(self, halt: Halt, called: Collection[int], memory: CodeMemory) -> None:
        """Free parked functions that no trampoline calls (`called`: ids) and nobody runs."""
        for number in sorted(self._parked - set(called)):
            placed = self._placed[number]
            if sum(one.segment.row == placed.segment.row for one in self._placed.values()) > 1:
                for slot in np.flatnonzero(self._header(placed.segment)["aliases"] == number):
                    self._write_alias(placed.segment, int(slot), 0)
                del self._placed[number]  # its ops have another id by now
                self._parked.discard(number)
                continue
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
        self,
        halt: Halt,
        numbers: Collection[int],
        spans: Sequence[tuple[int, int]] | None = None,
    ) -> bool:
        """Whether a call of these functions may be under way, though no rip points into our code:
        its count says so, and some stack leads back into their code, or into `spans`, those of
        trampolines. One that calls through pointers may be on a stack that is no thread's.
        Direct code has no count, and nothing of ours behind it: its own stacks decide."""
        known = [self._placed[number] for number in numbers if number in self._placed]
        direct = [one.span for one in known if Flags.DIRECT in one.flags and one.calls]
        if direct and spans is None and halt.stacks_lead_into(direct, self._region.spans):
            return True
        away = [placed for placed in known if _in_flight(halt, placed.segment)]
        if not away:
            return False
        chosen = [placed.span for placed in away] if spans is None else spans
        return any(placed.leaves for placed in away) or halt.stacks_lead_into(
            chosen, self._region.spans
        )


def functions_run(halt: Halt, region: Region) -> bool:
    """Whether any C function of a region may be under way, judged from the region alone."""
    every = region.of_kind(Kind.DATA)
    direct = [span for segment in every for span in _direct_spans(halt, segment)]
    if direct and halt.stacks_lead_into(direct, region.spans):
        return True
    away = [segment for segment in every if _in_flight(halt, segment)]
    if not away:
        return False
    leaves = (halt.target.memory.read_some(s.address + _offset("leaves"), 4) for s in away)
    return any(map(any, leaves)) or halt.stacks_lead_into(
        [(s.address, s.end) for s in region.of_kind(Kind.CODE)], region.spans
    )


def _vectors(traits: CodeTraits, flags: Flags) -> Vectors:
    # What it calls through pointers may use all of them, whatever it does itself.
    least = Vectors.XMM if Flags.SAVE_REGS in flags else Vectors.NONE
    return max(traits.vectors, Vectors.ALL if traits.leaves else least)


def _direct_spans(halt: Halt, segment: Segment) -> list[tuple[int, int]]:
    # Where direct code lies that something may come back to.
    piece = halt.target.memory.read_some(segment.address, DATA_HEADER_BYTES)
    rows = np.frombuffer(piece[: len(piece) // DATA_HEADER_BYTES * DATA_HEADER_BYTES], DATA_DTYPE)
    return [
        (int(row["code"]), int(row["code"]) + int(row["code_bytes"]))
        for row in rows
        if int(row["flags"]) & Flags.DIRECT and row["calls"]
    ]


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
        bool(row["calls"]),
        int(row["private"]),
        int(row["private_bytes"]),
    )


def _aliases(row: NDArray[np.void]) -> list[int]:
    return [int(one) for one in row["aliases"] if one]


def _offset(name: str) -> int:
    offset: int = DATA_DTYPE.fields[name][1]  # type: ignore[index]
    return offset


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
