"""A trace file of the ring that a process holds, without anything done to the process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fentry import __version__
from fentry.dispatch.ops import Callback, split_words
from fentry.errors import BadInput
from fentry.events.clock import ClockPair
from fentry.formats.tracefile_payloads import CpuLosses, Symbol, Task, TraceMeta
from fentry.formats.tracefile_payloads import Module as TraceModule
from fentry.formats.tracefile_writer import TraceWriter
from fentry.region.layout import Kind, SiteState, State
from fentry.region.registry import Registry, Rows
from fentry.ring.buffer import Geometry, RingBuffer, RingMemory, geometry_of
from fentry.ring.layout import CLOCK_NAMES, CLOCK_TSC, HEADER_BYTES, MODE_OVERWRITE
from fentry.ring.reader import Reader
from fentry.symbols.module import Module
from fentry.symbols.table import SymbolTable

_NAMES_AT_ONCE = 4096


class Source(Protocol):
    """Where a snapshot comes from; `name` is for messages, `pid`, `exe` and `command` for META.

    `now` is a moment after everything was read, None where nobody can know one.
    """

    name: str
    pid: int
    exe: str
    command: tuple[str, ...]
    registry: Registry

    def ring(self, address: int, count: int) -> RingMemory | None:
        """A private copy of the ring at an address of the process, None if it is not whole."""
        ...

    def heads(self, ring: RingBuffer, address: int) -> NDArray[np.uint64]:
        """The heads of its parts once the copy had been made: uint64[parts]."""
        ...

    def modules(self) -> tuple[list[Module], list[str]]:
        """Its files, and those that have no names, with why."""
        ...

    def tasks(self) -> list[Task]:
        """The names of its threads, as far as they are known."""
        ...

    def now(self) -> ClockPair | None:
        """This moment, if it is one of the process."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What became of it: events written, older ones forgotten, functions that the ops record, and
    files whose functions have no names, with why."""

    events: int
    overrun: int
    functions: int
    unnamed: tuple[str, ...]


def write_snapshot(
    source: Source, out: str | os.PathLike[str] | int, instance: str = ""
) -> Written:
    """Write a trace of the ring of the instances of this name ("" are the top ones) that holds
    most.

    Raises BadInput when there is no such ring, RegionError when what is there is damaged,
    TraceFileError when the file cannot be written.
    """
    ring, row = _ring(source, instance)
    geometry = ring.geometry
    forgotten = _skip_overwritten(source, ring, int(row["address"]))
    modules, unnamed = source.modules()
    reader = Reader(ring)
    writer = TraceWriter(out, _meta(source, geometry, row))
    try:
        if geometry.clock == CLOCK_TSC:
            now = source.now()
            kept = [ClockPair(*pair) for pair in ring.pairs]
            writer.write_clock([*kept, *([now] if now is not None else [])])
        _write_names(writer, source.registry, modules)
        if tasks := source.tasks():
            writer.write_tasks(tasks)
        for batch in reader.consume(skip_incomplete=True):
            records = np.ascontiguousarray(batch.records)
            writer.write_records(batch.cpu, batch.first, records.view(np.uint8).data)
        stats = reader.stats
        overrun = stats.overrun + forgotten
        columns = (stats.recorded, stats.dropped_events, overrun, stats.incomplete)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        writer.write_losses([CpuLosses(cpu, *one) for cpu, one in enumerate(rows)])
    finally:
        writer.close()
    ops = source.registry.ops
    ops = ops[(ops["state"] == State.LIVE) & (ops["instance"] == row["instance"])]
    functions = int(ops["nr_sites"][ops["callback"] == Callback.RECORD].sum())
    return Written(writer.records_written, int(overrun.sum()), functions, tuple(unnamed))


def _ring(source: Source, instance: str) -> tuple[RingBuffer, Rows]:
    rows = source.registry.segments
    rows = rows[(rows["kind"] == Kind.RING) & (rows["state"] == State.LIVE)]
    rows = rows[rows["name"] == instance.encode()]
    rings = [(ring, row) for row in rows if (ring := _open_ring(source, row)) is not None]
    if not rings:
        name = f" named {instance!r}" if instance else ""
        raise BadInput(f"{source.name} holds no ring{name}", cause="nothing was recorded there")
    return max(rings, key=lambda one: _taken(one[0]))


def _taken(ring: RingBuffer) -> int:
    # Records that it has ever had: positions begin at the capacity.
    return int((ring.lines["head"] - np.uint64(ring.geometry.capacity)).sum())


def _open_ring(source: Source, row: Rows) -> RingBuffer | None:
    memory = source.ring(int(row["address"]), int(row["bytes"]))
    if memory is None:
        return None
    try:
        geometry = geometry_of(memory.bytes[:HEADER_BYTES].tobytes(), len(memory))
    except ValueError:
        return None
    return RingBuffer(memory, geometry)


def _skip_overwritten(source: Source, ring: RingBuffer, address: int) -> NDArray[np.uint64]:
    # Where the reader begins, in a ring that overwrites: behind what writers may have touched while
    # it was copied. Returns how many are before that, by part.
    capacity = np.uint64(ring.geometry.capacity)
    if ring.geometry.mode != MODE_OVERWRITE:
        return np.zeros(ring.geometry.nr_cpus, np.uint64)
    copied, now = ring.lines["head"].copy(), source.heads(ring, address)
    first = np.minimum(np.maximum(now, 2 * capacity) - capacity, copied)
    ring.tails["tail"] = first
    return np.asarray(first - capacity, np.uint64)


def _meta(source: Source, geometry: Geometry, row: Rows) -> TraceMeta:
    rows = source.registry.ops
    rows = rows[(rows["state"] == State.LIVE) & (rows["callback"] == Callback.RECORD)]
    rows = rows[rows["instance"] == row["instance"]]
    text = bytes(rows[0]["filter"]).decode(errors="surrogateescape") if len(rows) else ""
    wanted, unwanted = split_words(text)
    return TraceMeta(
        clock=CLOCK_NAMES[geometry.clock],
        record_bytes=geometry.record_bytes,
        capacity=geometry.capacity,
        nr_cpus=geometry.nr_cpus - geometry.has_strays,
        stray_cpu=geometry.stray_cpu,
        fentry_version=__version__,
        command_line=source.command,
        pid=source.pid,
        exe=source.exe,
        filters=wanted,
        notrace=unwanted,
    )


def _write_names(writer: TraceWriter, registry: Registry, modules: Sequence[Module]) -> None:
    sites = registry.sites
    sites = sites[(sites["state"] != SiteState.FREE) & (sites["key"] != 0)]
    writer.write_sites(sites["key"].astype(np.uint32), sites["ip"].astype(np.uint64))
    table = SymbolTable(modules)
    writer.write_modules(
        [TraceModule(m.path, m.image.build_id, m.base, m.text_high) for m in modules]
    )
    for number, module in enumerate(modules):
        rows = module.image.functions.rows
        for start in range(0, len(rows), _NAMES_AT_ONCE):
            end = min(start + _NAMES_AT_ONCE, len(rows))
            writer.write_symbols(
                [
                    Symbol(
                        int(rows["vaddr"][row]) + module.bias, int(rows["size"][row]),
                        table.name_of(module, row), number, int(rows["vaddr"][row]),
                    )
                    for row in range(start, end)
                ]
            )  # fmt: skip
