"""Making, finding, adopting and removing the region of a target (docs/design/region.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fentry.errors import RegionError
from fentry.process import shared
from fentry.process.maps import USER_HIGH, Mapping, find_gap, read_maps
from fentry.process.memory import PAGE_BYTES, Memory
from fentry.process.proc import possible_cpus, read_stat
from fentry.process.remote import Remote, RemoteError, room_is_used
from fentry.process.shared import SharedMemory
from fentry.process.stub import Call
from fentry.region.layout import (
    CONTROL_MAGIC,
    CONTROL_MAGIC_OFFSET,
    COUNTERS_NAME,
    FOLLOW_NAME,
    MAX_RINGS,
    REGISTRY_NAME,
    RING_NAME,
    ROOMS_OFFSET,
    SEGMENT_DTYPE,
    THREADS_NAME,
    Kind,
    State,
    control_bytes,
    registry_bytes,
)
from fentry.region.owners import Owners
from fentry.region.registry import Registry, find_registry, new_header, page_align

NR_MMAP = 9
NR_MUNMAP = 11
NR_MREMAP = 25
NR_MADVISE = 28
NR_CLOSE = 3
NR_MEMFD_CREATE = 319

_PROT_RW = 3
_PROT_RX = 5
_MAP_SHARED = 0x01
_MAP_PRIVATE = 0x02
_MAP_ANONYMOUS = 0x20
_MAP_NORESERVE = 0x4000
_MAP_FIXED_NOREPLACE = 0x100000
_MREMAP_MOVE = 3  # MREMAP_MAYMOVE | MREMAP_FIXED
_MADV_DONTNEED_LOCKED = 24  # Linux 5.18
_MADV_WIPEONFORK = 18
_MFD_CLOEXEC = 0x1
_MFD_ALLOW_SEALING = 0x2

_KINDS = [int(kind) for kind in Kind]
_NAMES = {
    Kind.REGISTRY: REGISTRY_NAME,
    Kind.RING: RING_NAME,
    Kind.COUNTERS: COUNTERS_NAME,
    Kind.THREADS: THREADS_NAME,
    Kind.FOLLOW: FOLLOW_NAME,
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A live segment: row in the table, kind, address in the target, size in bytes; `owner` is the
    number of the controller that it belongs to, 0 where all share it."""

    row: int
    kind: Kind
    address: int
    bytes: int
    used: int = 0
    instance: int = 0
    name: str = ""
    owner: int = 0

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.bytes


class Region:
    """The region of one target, of a registry that exists."""

    def __init__(self, memory: Memory, registry: Registry) -> None:
        self.memory = memory
        self.registry = registry

    # 1. Coming and going

    @classmethod
    def open(cls, memory: Memory, maps: Sequence[Mapping]) -> Region | None:
        """The region that the process has, or None.

        Raises RegionError when it is damaged, UnfinishedRegistry when its controller died while
        making it.
        """
        mapping = find_registry(maps)
        if mapping is None:
            return None
        return cls(memory, Registry(memory, mapping.start, mapping.end - mapping.start))

    @classmethod
    def create(
        cls, remote: Remote, memory: Memory, maps: Sequence[Mapping], site_rows: int
    ) -> Region:
        """Make a registry and the control page in the stopped target."""
        nr_cpus = possible_cpus()
        count = registry_bytes(site_rows)
        address = _far_gap(maps, count)
        header = new_header(address=address, site_rows=site_rows, nr_cpus=nr_cpus)
        header["pid"] = memory.pid
        header["start_time"] = read_stat(memory.pid).start_time

        def prepare(fd: int) -> None:
            shared.size_and_seal(fd, count)
            os.pwrite(fd, header.tobytes(), 0)

        _map_shared(remote, memory.pid, Kind.REGISTRY, address, count, prepare)
        region = cls(memory, Registry(memory, address, count))
        control = region.add(remote, Kind.CONTROL, control_bytes(nr_cpus))
        region.registry.write_header(control_address=control.address, control_bytes=control.bytes)
        memory.write_u64(control.address + CONTROL_MAGIC_OFFSET, CONTROL_MAGIC)
        return region

    @property
    def is_whole(self) -> bool:
        """Whether who made it lived until it was done: nothing is traced before."""
        return int(self.registry.header["control_address"]) != 0

    @property
    def owners(self) -> Owners:
        """The controllers of the region."""
        return Owners(self.registry)

    # 2. Where trampolines look whether they may write

    def add_follow(self, remote: Remote) -> SharedMemory:
        """Let children that are forked from now on record: the memory that all of them share."""
        nr_cpus = int(self.registry.header["nr_cpus"])
        held: list[SharedMemory] = []
        self.add(remote, Kind.BASES, control_bytes(nr_cpus))
        self.add(remote, Kind.FOLLOW, PAGE_BYTES, keep=held.append)
        self.allow()
        return held[0]

    def allow(self) -> None:
        """What followed children share says that they are followed: not yet into which rings."""
        if self.follow is not None:
            self.memory.write_u64(self.follow.address + CONTROL_MAGIC_OFFSET, CONTROL_MAGIC)

    @cached_property
    def follow(self) -> Segment | None:
        """The memory that followed children share with their parent, None where forked children
        are silent."""
        found = self.of_kind(Kind.FOLLOW)
        return found[0] if found else None

    @property
    def switches(self) -> int:
        """Address of the page with the rooms of the rings, and of a word that is 0 where nothing
        is counted without rseq."""
        return self.follow.address if self.follow else self._control

    @property
    def bases(self) -> int:
        """Address of the page with the bases of the counters."""
        own = self.of_kind(Kind.BASES) if self.follow else []
        return own[0].address if own else self._control

    @property
    def _control(self) -> int:
        return int(self.registry.header["control_address"])

    @property
    def is_followed(self) -> bool:
        """Whether this process, its children and its parent record into the same rings now."""
        return self.follow is not None and bool(self.memory.read_u64(self.follow.address))

    def silence(self) -> None:
        """Nobody who shares the rings records any more, in whatever process; for ever."""
        if self.follow is not None:
            self.memory.write_u64(self.follow.address + CONTROL_MAGIC_OFFSET, 0)
            self.memory.write(self.follow.address + ROOMS_OFFSET, bytes(8 * MAX_RINGS))

    # 3. Segments

    @property
    def segments(self) -> list[Segment]:
        """The segments that are mapped: also planned ones that came true."""
        found = self._segments((State.LIVE, State.PARKED))
        planned = self._segments((State.PLANNED,))
        maps = read_maps(self.memory.pid) if planned else []
        return found + [segment for segment in planned if _is_mapped(maps, segment)]

    def _segments(self, states: tuple[State, ...]) -> list[Segment]:
        rows = self.registry.segments
        chosen = np.isin(rows["state"], [int(state) for state in states]) & np.isin(
            rows["kind"], _KINDS
        )
        return [
            Segment(
                i,
                Kind(int(rows["kind"][i])),
                int(rows["address"][i]),
                int(rows["bytes"][i]),
                int(rows["used"][i]),
                int(rows["instance"][i]),
                bytes(rows["name"][i]).decode(errors="replace"),
                int(rows["owner"][i]),
            )
            for i in np.flatnonzero(chosen).tolist()
        ]

    def spans(self) -> list[tuple[int, int]]:
        """Where (low, high) its segments lie: no stack of the program reaches into them."""
        return [(segment.address, segment.end) for segment in self.segments]

    def of_kind(self, kind: Kind) -> list[Segment]:
        """The live segments of one kind."""
        return [segment for segment in self.segments if segment.kind is kind]

    def add(
        self,
        remote: Remote,
        kind: Kind,
        count: int,
        *,
        address: int = 0,
        instance: int = 0,
        owner: int = 0,
        keep: Callable[[SharedMemory], None] | None = None,
    ) -> Segment:
        """Map a segment of `count` bytes; shared kinds are sized and sealed, all are zero.

        `keep` receives the memory of a shared segment as mapped here.
        """
        count = page_align(count)
        address = address or _far_gap(read_maps(self.memory.pid), count)
        rows = self.registry.segments
        free = np.flatnonzero(rows["state"] == State.FREE)
        if not len(free):
            raise RegionError("the table of segments is full", remedy="fentry detach, and again")
        row = int(free[0])
        entry = np.zeros((), SEGMENT_DTYPE)
        entry["kind"], entry["state"] = kind, State.PLANNED
        entry["address"], entry["bytes"] = address, count
        entry["instance"], entry["owner"] = instance, owner
        self.registry.write_segment(row, entry)
        try:
            if kind in _NAMES:

                def prepare(fd: int) -> None:
                    shared.size_and_seal(fd, count)
                    if keep is not None:
                        keep(SharedMemory(fd, count))

                _map_shared(remote, self.memory.pid, kind, address, count, prepare)
            else:
                _map_private(remote, kind, address, count)
        except BaseException:
            entry["state"] = State.FREE
            self.registry.write_segment(row, entry)
            raise
        entry["state"] = State.LIVE
        self.registry.write_segment(row, entry)
        return Segment(row, kind, address, count, 0, instance, owner=owner)

    def set_used(self, segment: Segment, used: int) -> None:
        """Note how many bytes of a code segment are given out."""
        offset = SEGMENT_DTYPE.fields["used"][1]  # type: ignore[index]
        table = int(self.registry.header["segments_offset"])
        at = self.registry.address + table + segment.row * SEGMENT_DTYPE.itemsize + offset
        self.memory.write_u64(at, used)

    def set_instance(self, segment: Segment, instance: int) -> None:
        """Note whose a segment is, 0 for nobody's."""
        rows = self.registry.segments
        row = rows[segment.row : segment.row + 1].copy()
        row["instance"] = instance
        self.registry.write_segment(segment.row, row[0])

    def park(self, segment: Segment) -> None:
        """Note that nobody needs a segment any more, and that code may still run that does."""
        rows = self.registry.segments
        rows["state"][segment.row] = State.PARKED
        self.registry.write_segment(segment.row, rows[segment.row])

    def set_name(
        self, segment: Segment, name: str, *, instance: int | None = None, owner: int | None = None
    ) -> None:
        """Note the name of what a segment holds, and anew whose it is."""
        rows = self.registry.segments
        row = rows[segment.row : segment.row + 1].copy()
        row["name"] = name.encode()
        if instance is not None:
            row["instance"] = instance
        if owner is not None:
            row["owner"] = owner
        self.registry.write_segment(segment.row, row[0])

    def drop(self, remote: Remote, segments: Sequence[Segment]) -> None:
        """Unmap segments; their rows are free again."""
        rows = self.registry.segments
        for segment in segments:  # until it is free: believed only while it is mapped
            rows["state"][segment.row] = State.PLANNED
            self.registry.write_segment(segment.row, rows[segment.row])
        for i in range(0, len(segments), 6):
            part = segments[i : i + 6]
            remote.run([unmap(s.address, s.bytes) for s in part])
        for segment in segments:
            self.registry.write_segment(segment.row, np.zeros((), SEGMENT_DTYPE))

    def share(self, remote: Remote, segment: Segment) -> SharedMemory:
        """The memory of a shared segment, mapped here as well: adoption.

        In the stopped target a new memfd is mapped elsewhere, filled, and moved over the old
        mapping by one mremap(2): whenever we die, the target has a whole one.
        """
        held: list[SharedMemory] = []

        def prepare(fd: int) -> None:
            shared.size_and_seal(fd, segment.bytes)
            ours = SharedMemory(fd, segment.bytes)
            _copy_used(self.memory, segment, ours)
            held.append(ours)

        apart = _far_gap(read_maps(self.memory.pid), segment.bytes)
        _map_shared(remote, self.memory.pid, segment.kind, apart, segment.bytes, prepare)
        move = (apart, segment.bytes, segment.bytes, _MREMAP_MOVE, segment.address)
        remote.run([Call(NR_MREMAP, move, name="mremap")])
        return held[0]

    def forget_planned(self, maps: Sequence[Mapping]) -> None:
        """Inside a stop, in which nobody else is at it: rows whose memory was never mapped, or was
        unmapped already, when their controller died, are free again; and so is its number.

        Not while a stub of a dead one lies in one of the `maps`: it may be about to map them.
        """
        if any(room_is_used(self.memory, mapping) for mapping in maps):
            return
        for segment in self._segments((State.PLANNED,)):
            if not _is_mapped(maps, segment):
                self.registry.write_segment(segment.row, np.zeros((), SEGMENT_DTYPE))

    def remove_all(self, remote: Remote) -> None:
        """Unmap every segment and the registry itself: the last step of a detach.

        Rows of its own say PLANNED before their memory goes: whoever finds them after our death
        believes only what is mapped exactly so.
        """
        maps = read_maps(self.memory.pid)
        every = self._segments((State.LIVE, State.PARKED, State.PLANNED))
        real = [s for s in every if _is_mapped(maps, s)]
        rows = self.registry.segments
        rows["state"][rows["state"] != State.FREE] = State.PLANNED
        self.registry.write_rows(int(self.registry.header["segments_offset"]), 0, rows)
        calls = [unmap(s.address, s.bytes) for s in real if s.kind is not Kind.CONTROL]
        known = {s.address for s in real} | {self.registry.address}
        calls += [unmap(m.start, m.size) for m in maps if _is_ours(m) and m.start not in known]
        calls += [unmap(s.address, s.bytes) for s in real if s.kind is Kind.CONTROL]
        calls.append(unmap(self.registry.address, self.registry.bytes))
        for i in range(0, len(calls), 6):
            remote.run(calls[i : i + 6])


def unmap(address: int, count: int) -> Call:
    """munmap(2) as a call of the target."""
    return Call(NR_MUNMAP, (address, count), name="munmap")


def give_back(address: int, count: int) -> Call:
    """madvise(2): a private page of a file becomes the file's page again, locked or not."""
    return Call(NR_MADVISE, (address, count, _MADV_DONTNEED_LOCKED), name="madvise")


def remove_orphans(remote: Remote, maps: Sequence[Mapping]) -> bool:
    """Unmap registries that a dead controller never finished; whether there was one."""
    found = [m for m in maps if _is_ours(m)]
    for mapping in found:
        remote.run([unmap(mapping.start, mapping.size)])
    return bool(found)


def _is_ours(mapping: Mapping) -> bool:
    return mapping.path.startswith("/memfd:fentry-") and mapping.perms in ("rw-s", "rw-p")


def _is_mapped(maps: Sequence[Mapping], segment: Segment) -> bool:
    # As the row says: shared kinds exactly, by name; private ones inside a nameless mapping of
    # the same permissions, because the kernel merges neighbours.
    if segment.kind in _NAMES:
        name = f"/memfd:{_NAMES[segment.kind].decode()} (deleted)"
        wanted = (segment.address, segment.end, "rw-s", name)
        return any((m.start, m.end, m.perms, m.path) == wanted for m in maps)
    perms = "r-xp" if segment.kind is Kind.CODE else "rw-p"
    return any(
        m.start <= segment.address and segment.end <= m.end and (m.perms, m.path) == (perms, "")
        for m in maps
    )


def _far_gap(maps: Sequence[Mapping], count: int) -> int:
    # Anywhere: below the highest mapping's neighbourhood of libraries, away from heap and stack.
    libraries = [m for m in maps if m.path.startswith("/")] or list(maps)
    near = libraries[-1].start, libraries[-1].end
    try:
        return find_gap(maps, count, *near)
    except RegionError:  # a static program of gigabytes: nothing of this has to be near
        return find_gap(maps, count, *near, reach=USER_HIGH)


def _map_shared(
    remote: Remote,
    pid: int,
    kind: Kind,
    address: int,
    count: int,
    prepare: Callable[[int], None],
) -> None:
    failure: list[BaseException] = []

    def on_result(i: int, result: int) -> bool:
        if i:
            return True
        try:
            ours = shared.fetch(pid, result)
            try:
                prepare(ours)
            finally:
                os.close(ours)
        except BaseException as error:
            failure.append(error)
        return True

    # The registry says what is written into text and unmapped: nobody but the process itself may
    # write it, least of all a forked child that has given up its privileges.
    sharing = _MAP_PRIVATE if kind is Kind.REGISTRY else _MAP_SHARED
    flags = sharing | _MAP_FIXED_NOREPLACE | _MAP_NORESERVE
    calls = [
        Call(NR_MEMFD_CREATE, (0, _MFD_CLOEXEC | _MFD_ALLOW_SEALING), text=_NAMES[kind],
             name="memfd_create"),
        Call(NR_MMAP, (address, count, _PROT_RW, flags, 0, 0), fd=4, name="mmap"),
        Call(NR_CLOSE, (0,), fd=0, name="close"),
    ]  # fmt: skip
    try:
        results = remote.run(calls, on_result)
    except RemoteError as error:
        if error.results:  # the descriptor was made, the mapping was not
            remote.run([Call(NR_CLOSE, (error.results[0],), name="close")])
        raise
    if results[1] != address:
        remote.run([unmap(results[1], count)])
        raise RegionError(f"the target mapped {results[1]:#x} instead of {address:#x}")
    if failure:
        remote.run([unmap(address, count)])
        raise failure[0]


def _map_private(remote: Remote, kind: Kind, address: int, count: int) -> None:
    protection = _PROT_RX if kind is Kind.CODE else _PROT_RW
    flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE | _MAP_NORESERVE
    calls = [Call(NR_MMAP, (address, count, protection, flags, -1, 0), name="mmap")]
    if kind is Kind.CONTROL:
        calls.append(Call(NR_MADVISE, (address, count, _MADV_WIPEONFORK), name="madvise"))
    results = remote.run(calls)
    if results[0] != address:
        remote.run([unmap(results[0], count)])
        raise RegionError(f"the target mapped {results[0]:#x} instead of {address:#x}")


def _copy_used(memory: Memory, segment: Segment, ours: SharedMemory) -> None:
    # Page by page through the kernel's map of what exists would need privilege: copy what is
    # not zero, so that untouched pages stay unallocated.
    step = 1 << 20
    for offset in range(0, segment.bytes, step):
        piece = np.frombuffer(
            memory.read(segment.address + offset, min(step, segment.bytes - offset)), np.uint8
        )
        pages = piece.reshape(-1, PAGE_BYTES)
        used = pages.any(axis=1)
        ours.bytes[offset : offset + len(piece)].reshape(-1, PAGE_BYTES)[used] = pages[used]
