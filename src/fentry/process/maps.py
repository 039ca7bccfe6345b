"""The mappings of a process, from /proc/PID/maps, and free space between them.

Not here: what the mapped files contain (symbols/), and mapping anything (remote system calls).
Mirrors the kernel's fs/proc/task_mmu.c, show_map_vma().
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fentry.errors import BadInput, RegionError, TargetGone
from fentry.process.proc import living, read_maps_text

PAGE_SIZE = 4096
# A rel32 reaches 2 GiB; the last 64 KiB stay unused, so that displacements into the middle of
# either side and past the end of an instruction need no second thought.
REACH = 0x7FFF_0000
# brk grows a heap upwards in steps of 128 KiB and more (M_TOP_PAD); the kernel leaves at least
# 128 MiB between a stack and the top of the mmap area (mmap_base(), arch/x86/mm/mmap.c).
HEAP_MARGIN = 64 << 20
STACK_MARGIN = 128 << 20
# vm.mmap_min_addr is 64 KiB by default; the last page below 2**47 is never mapped (TASK_SIZE).
USER_LOW = 0x1_0000
USER_HIGH = 0x7FFF_FFFF_F000

_DELETED = " (deleted)"
_LINE = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) ([-r][-w][-x][-ps]) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) "
    rb"(\d+)(?: *(.*))?"
)


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps; addresses and `offset` are bytes, `end` is exclusive.

    `device` is the kernel's "major:minor" in hex, `inode` 0 for memory without a file. `path` is
    as the kernel prints it with newlines put back; a trailing " (deleted)" is kept, because a
    file may really be called so.
    """

    start: int
    end: int
    perms: str
    offset: int
    device: str
    inode: int
    path: str

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start

    @property
    def executable(self) -> bool:
        """Whether instructions can be fetched from it."""
        return self.perms[2] == "x"

    @property
    def writable(self) -> bool:
        """Whether the target itself can write to it."""
        return self.perms[1] == "w"

    @property
    def shared(self) -> bool:
        """Whether a write is seen by every process that maps the same pages (MAP_SHARED)."""
        return self.perms[3] == "s"

    @property
    def is_deleted(self) -> bool:
        """Whether the kernel says that the file has lost its name."""
        return self.path.endswith(_DELETED)

    @property
    def path_undeleted(self) -> str:
        """The path the file had before it was deleted."""
        return self.path.removesuffix(_DELETED)


def parse_maps(text: bytes | str) -> list[Mapping]:
    """The lines of a /proc/PID/maps as mappings, in the order given.

    Raises BadInput, with the line, if one is not what show_map_vma() prints.
    """
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return [_parse_line(line) for line in raw.split(b"\n") if line]


def read_maps(pid: int) -> list[Mapping]:
    """The mappings of a live process, lowest address first.

    Raises TargetGone if there is no such process or it has no memory (it is ending, or a kernel
    thread), PermissionError if it may not be read.
    """
    try:
        text = read_maps_text(pid)
        if not text:  # a leader that has ended shows nothing, its threads do
            with open(f"{living(pid)}/maps", "rb") as file:
                text = file.read()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TargetGone(f"cannot read the mappings of {pid}", cause="no such process") from error
    if not text:
        raise TargetGone(f"process {pid} has no memory any more", cause="it is ending")
    return list(_parsed(text))


@lru_cache(maxsize=2)
def _parsed(text: bytes) -> tuple[Mapping, ...]:
    # Mostly what it was a moment ago, and inside a stop there is no time to lose.
    return tuple(parse_maps(text))


def mapping_at(maps: Sequence[Mapping], address: int) -> Mapping | None:
    """The mapping that holds an address, if any; `maps` sorted by address."""
    index = bisect_right(maps, address, key=lambda mapping: mapping.start) - 1
    return maps[index] if index >= 0 and address < maps[index].end else None


def gaps(maps: Sequence[Mapping], lo: int, hi: int, size: int) -> list[tuple[int, int]]:
    """The unmapped ranges (start, end) within lo..hi of at least `size` bytes, lowest first."""
    return [
        gap for gap in _free(((m.start, m.end) for m in maps), lo, hi) if gap[1] - gap[0] >= size
    ]


def find_gap(
    maps: Sequence[Mapping],
    size: int,
    near_lo: int,
    near_hi: int,
    *,
    reach: int = REACH,
    brk: int = 0,
) -> int:
    """A page-aligned free address for `size` bytes, all within `reach` of all of near_lo..near_hi.

    Of the fitting places the one closest to the span is taken, the lower one of two equals, so
    equal maps give equal answers. Room that a heap or a stack may grow into (HEAP_MARGIN above
    [heap], STACK_MARGIN below [stack]) is used only if there is no other. `brk` is the target's
    start_brk where known: a heap that does not exist yet has no mapping to keep away from.

    The address is only free as long as the target stands still: map it with
    MAP_FIXED_NOREPLACE. Raises RegionError if nothing fits.
    """
    size = -(-size // PAGE_SIZE) * PAGE_SIZE
    lo = max(USER_LOW, _page_up(near_hi - reach))
    hi = min(USER_HIGH, _page_down(near_lo + reach))
    taken = [(mapping.start, mapping.end) for mapping in maps]
    for share in (1, 8, 0):  # whole margins, an eighth of them, none
        zones = _growth_zones(maps, brk, share) if share else []
        found = _closest(_free(taken + zones, lo, hi), size, near_lo, near_hi)
        if found is not None:
            return found
    raise RegionError(
        f"no room for {size} bytes within reach of 0x{near_lo:x}-0x{near_hi:x}",
        cause=f"every gap between 0x{lo:x} and 0x{hi:x} is smaller",
    )


def _parse_line(line: bytes) -> Mapping:
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadInput(f"not a line of /proc/PID/maps: {line!r}")
    start, end, perms, offset, device, inode, path = match.groups()
    # seq_file_path() escapes only "\n" (as \012): a backslash of the name itself stays single.
    name = (path or b"").replace(rb"\012", b"\n").decode("utf-8", "surrogateescape")
    return Mapping(
        int(start, 16),
        int(end, 16),
        perms.decode(),
        int(offset, 16),
        device.decode(),
        int(inode),
        name,
    )


def _free(
    taken: Iterator[tuple[int, int]] | list[tuple[int, int]], lo: int, hi: int
) -> list[tuple[int, int]]:
    """What of lo..hi no range of `taken` covers; the ranges may overlap and come in any order."""
    free = []
    position = lo
    for start, end in sorted(taken):
        if start >= hi:
            break
        if start > position:
            free.append((position, start))
        position = max(position, end)
    if position < hi:
        free.append((position, hi))
    return free


def _growth_zones(maps: Sequence[Mapping], brk: int, share: int) -> list[tuple[int, int]]:
    zones = []
    for mapping in maps:
        if mapping.path == "[heap]":
            zones.append((mapping.end, mapping.end + HEAP_MARGIN // share))
        elif mapping.path.startswith("[stack"):
            zones.append((max(0, mapping.start - STACK_MARGIN // share), mapping.start))
    if brk:
        zones.append((brk, brk + HEAP_MARGIN // share))
    return zones


def _closest(free: list[tuple[int, int]], size: int, near_lo: int, near_hi: int) -> int | None:
    """The start of `size` bytes in one of the free ranges that is closest to the span."""
    best: tuple[int, int] | None = None
    for start, end in free:
        start, end = _page_up(start), _page_down(end)
        if end - start < size:
            continue
        address = min(max(start, _page_down(near_lo) - size), end - size)
        distance = max(near_lo - (address + size), address - near_hi, 0)
        if best is None or (distance, address) < best:
            best = (distance, address)
    return None if best is None else best[1]


def _page_up(address: int) -> int:
    return -(-address // PAGE_SIZE) * PAGE_SIZE


def _page_down(address: int) -> int:
    return address // PAGE_SIZE * PAGE_SIZE
