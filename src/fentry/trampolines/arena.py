"""Executable memory near the modules it serves: who has which bytes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fentry.region.region import Segment

SPAN_LIMIT = 1 << 30
SMALLEST_BYTES = 64 << 10
SLOT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """A span of text (target addresses) that one arena can serve with 5-byte branches."""

    low: int
    high: int


def neighbourhoods(spans: Sequence[tuple[int, int]]) -> tuple[list[Neighbourhood], list[int]]:
    """Group spans of text (low, high) so that each group fits SPAN_LIMIT.

    Returns the groups and, for each span, the index of its group.
    """
    order = sorted(range(len(spans)), key=lambda i: spans[i])
    groups: list[list[int]] = []
    member = [0] * len(spans)
    for i in order:
        low, high = spans[i]
        if groups and high - groups[-1][0] <= SPAN_LIMIT:
            groups[-1][1] = max(groups[-1][1], high)
        else:
            groups.append([low, high])
        member[i] = len(groups) - 1
    return [Neighbourhood(low, high) for low, high in groups], member


@dataclass(slots=True)
class Arena:
    """The code segments of one neighbourhood; memory is given out in slots of 64 bytes."""

    near: Neighbourhood
    segments: list[Segment] = field(default_factory=list)
    _used: dict[int, int] = field(default_factory=dict)
    _free: dict[int, list[int]] = field(default_factory=dict)

    def add(self, segment: Segment) -> None:
        """Take a fresh or found code segment into use."""
        self.segments.append(segment)
        self._used[segment.row] = segment.used

    def shortage(self, count: int) -> int:
        """Bytes of a new segment that are needed before `count` can be given out; 0 if none."""
        for segment in self.segments:
            if segment.bytes - self._used[segment.row] >= count:
                return 0
        if any(size >= _slots(count) and free for size, free in self._free.items()):
            return 0
        return max(SMALLEST_BYTES, -(-count // SMALLEST_BYTES) * SMALLEST_BYTES)

    def take(self, count: int) -> int:
        """The address of `count` bytes in one piece, rounded up to slots. shortage() must be 0."""
        count = _slots(count)
        if self._free.get(count):
            return self._free[count].pop()
        if larger := [size for size, free in self._free.items() if size > count and free]:
            size = min(larger)
            address = self._free[size].pop()
            self._free.setdefault(size - count, []).append(address + count)
            return address
        for segment in self.segments:
            used = self._used[segment.row]
            if segment.bytes - used >= count:
                self._used[segment.row] = used + count
                return segment.address + used
        raise ValueError(f"no room for {count} bytes in the arena")

    def give(self, address: int, count: int) -> None:
        """Take back what `take` gave and nobody uses any more."""
        self._free.setdefault(_slots(count), []).append(address)

    def used(self) -> dict[Segment, int]:
        """Bytes given out of each segment."""
        return {segment: self._used[segment.row] for segment in self.segments}

    def mark(self) -> tuple[dict[int, int], dict[int, list[int]]]:
        """The state, for rewind() when a transaction fails."""
        return dict(self._used), {size: list(free) for size, free in self._free.items()}

    def rewind(self, mark: tuple[dict[int, int], dict[int, list[int]]]) -> None:
        """Back to a marked state; segments that came since stay."""
        used, free = mark
        self._used = {s.row: used.get(s.row, s.used) for s in self.segments}
        self._free = free


def _slots(count: int) -> int:
    return -(-count // SLOT_BYTES) * SLOT_BYTES
