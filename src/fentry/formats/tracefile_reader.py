"""TraceReader: a trace file as metadata and streams of Events.

The file is mapped, not read: opening costs the index and the small sections, whatever the
number of records.  The content is untrusted: damage is collected in `damage`, never raised,
as long as anything at all can be read.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput, TraceFileError
from fentry.events.clock import Clock, ClockPair
from fentry.events.columns import Addresses, Events
from fentry.events.merge import HOLD_BACK, Merge
from fentry.formats import tracefile_layout as layout
from fentry.formats import tracefile_payloads as payloads
from fentry.formats import tracefile_records
from fentry.formats import tracefile_sections as sections
from fentry.formats.tracefile_layout import SectionKind
from fentry.formats.tracefile_records import RecordsHead
from fentry.formats.tracefile_sections import Damage, Section
from fentry.ring.layout import CLOCK_NAMES, CLOCK_PERCPU_COUNTER, TID_MASK

COUNTER = CLOCK_NAMES[CLOCK_PERCPU_COUNTER]

_DENSE_KEYS = 1 << 22
_MAX_DAMAGE = 1000


class Run(NamedTuple):
    """Records that lay one after the other in the ring of a CPU, the first one at `position`; times
    of the first and of the last as in Events."""

    cpu: int
    position: int
    nr_records: int
    first_ns: int
    last_ns: int


class TraceReader:
    """An open trace; a context manager.  `path` may be a pipe, which is then kept on disk.

    Raises TraceFileError when the file cannot be opened or mapped, is no fentry trace, has
    another version, or holds nothing that can be read.

    meta      what was traced; when META is damaged, what the records say, and blanks
    complete  whether the file was closed properly (has END)
    damage    grows while records are read, as their sections are checked only then
    losses    one CpuLosses for each CPU, the last that was written
    modules   files of the target; Symbol.module counts in this list
    symbols   SYMBOL_ENTRY[n] in file order, names in `symbol_names`
    tasks     every naming of a thread, in file order
    events    what happened to the trace: stops, gaps, detach, as written by write_event
    records   records in whole sections, before torn ones are left out
    torn      records met so far whose lap does not fit their position; they are not shown
    late      events that merged() could not put in order (see events.merge)
    has_time  whether records have a time; else time_ns of Events is a count of each CPU's records,
              and there is no order across CPUs
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._data = _map(self.path)
        try:
            self._open()
        except BaseException:
            self._data.close()
            raise

    def _open(self) -> None:
        self.damage: list[Damage] = []
        self.complete = False
        self.modules: list[payloads.Module] = []
        self.tasks: list[payloads.Task] = []
        self.events: list[dict[str, payloads.Json]] = []
        self.symbols = np.empty(0, layout.SYMBOL_ENTRY)
        self.symbol_names: list[bytes] = []
        self.torn = 0
        self.late = 0
        self._meta: payloads.TraceMeta | None = None
        self._losses: dict[int, payloads.CpuLosses] = {}
        self._pairs: list[ClockPair] = []
        self._site_blocks: list[NDArray[np.void]] = []
        self._symbol_blocks: list[NDArray[np.void]] = []
        self._damaged_at: set[int] = set()
        self._suspect: set[int] = set()
        self._read_sections()
        if self._symbol_blocks:
            self.symbols = np.concatenate(self._symbol_blocks)
        self.records = int(self._places["records"].sum())
        self.meta = self._meta or self._meta_of_records()
        self.has_time = self.meta.clock != COUNTER
        self.clock = self._clock()
        self._key_table = _KeyTable(self._site_blocks)

    @property
    def losses(self) -> list[payloads.CpuLosses]:
        """Losses by CPU number."""
        return [self._losses[cpu] for cpu in sorted(self._losses)]

    @property
    def entries(self) -> Addresses:
        """The function entries that records are of, uint64[n]; 0 for keys that are not known."""
        return self._key_table.entries()

    @property
    def site_ips(self) -> Addresses:
        """Where the functions begin that were traced, called or not: uint64[n] sorted."""
        ips = [block["ip"] for block in self._site_blocks]
        return np.unique(np.concatenate(ips)) if ips else np.empty(0, np.uint64)

    def batches(
        self,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        only: Addresses | None = None,
    ) -> Iterator[Events]:
        """Events in file order, up to CHUNK_RECORDS at a time; start_ns <= time_ns < end_ns.

        With `only`, those of these of `entries`: of all others nothing but the key is looked at.
        Raises BadInput for a bound where records have no time.
        """
        chosen = self._chosen(only)
        for place in self._places:
            yield from self._within(self._section_events(place, chosen), start_ns, end_ns)

    def merged(
        self,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        only: Addresses | None = None,
        hold_back: int = HOLD_BACK,
    ) -> Iterator[Events]:
        """Events in order of time across CPUs; memory is bounded by CPUs, not by the file.

        Without times: the events of each CPU in their order, one CPU after the other. Raises as
        batches().
        """
        if not self.has_time:
            for cpu in self.cpus:
                yield from self._within(self.cpu_events(cpu, only), start_ns, end_ns)
            return
        merge = Merge([self.cpu_events(cpu, only) for cpu in self.cpus], hold_back=hold_back)
        for events in merge:
            self.late = merge.late
            yield from self._within(iter((events,)), start_ns, end_ns)

    def runs(self) -> Iterator[Run]:
        """What is recorded without a gap, in file order: one for each section with records."""
        for place in self._places:
            section = self._section_of(place)
            head = None if section is None else self._head(section)
            if section is None or head is None:
                continue
            try:
                yield from self._run_of(section, head)
            except ValueError as error:
                self._note(section.offset, str(error))

    def _run_of(self, section: Section, head: RecordsHead) -> Iterator[Run]:
        times: list[int] = []
        count = 0
        for position, records in tracefile_records.chunks(self._data, section, head):
            if len(records):
                ends = records[:: max(1, len(records) - 1)]
                times += self._decode(ends, head).time_ns.tolist()
                count = position + len(records) - head.first_position
        if count:
            yield Run(head.cpu, head.first_position, count, times[0], times[-1])

    @property
    def cpus(self) -> list[int]:
        """The CPUs that records are of."""
        found: list[int] = np.unique(self._places["cpu"]).tolist()
        return found

    def cpu_events(self, cpu: int, only: Addresses | None = None) -> Iterator[Events]:
        """The events of one CPU in file order; `only` as of batches()."""
        chosen = self._chosen(only)
        for place in self._places[self._places["cpu"] == cpu]:
            yield from self._section_events(place, chosen)

    def close(self) -> None:
        """Unmap the file; Events already delivered stay valid."""
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_sections(self) -> None:
        header = sections.read_file_header(self._data)
        index = None
        if header.damaged:
            self._note(0, "the file header is damaged")
        else:
            index = sections.sections_of_index(self._data, header.file_id)
        if index is None:
            self._walk(header)
            return
        self.complete = True
        self._file_id: int | None = header.file_id
        hold_records = np.isin(index["kind"], tracefile_records.KINDS)
        self._places = index[hold_records]
        for entry in index[~hold_records]:
            offset = int(entry["offset"])
            section = sections.section_at(self._data, offset, header.file_id)
            if section is None:
                what = f"the {sections.kind_name(int(entry['kind']))} section has no valid header"
                self._note(offset, what)
            else:
                self._read_small(section)

    def _walk(self, header: sections.FileHeader) -> None:
        places: list[tuple[int, int, int, int, int, int]] = []
        self._file_id = None if header.damaged else header.file_id
        found = False
        for item in sections.walk(self._data, header.header_bytes, self._file_id):
            if isinstance(item, Damage):
                self._note(*item)
                continue
            if not found and self._file_id is None:
                self._file_id = sections.id_at(self._data, item.offset)
            found = True
            if item.kind == SectionKind.END:
                self.complete = sections.payload_fits(self._data, item)
            if item.kind in tracefile_records.KINDS:
                places += self._place(item)
            else:
                self._read_small(item)
        self._places = np.array(places, layout.INDEX_ENTRY)
        if not found:
            raise _nothing(self.path, header.damaged)
        if not self.complete:
            what = "the file has no END: still being recorded, or recording was cut off"
            self._note(len(self._data), what)

    def _place(self, section: Section) -> list[tuple[int, int, int, int, int, int]]:
        # what the index would say of a section with records; nothing if they are not usable
        head = self._head(section)
        if head is None:
            return []
        if section.suspect:
            self._suspect.add(section.offset)
        size, kind = section.available, section.kind
        return [(section.offset, size, section.sequence, kind, head.cpu, head.count)]

    def _read_small(self, section: Section) -> None:
        kind = section.kind
        if kind not in _READERS:
            return
        if not sections.payload_fits(self._data, section):
            if section.available == section.payload_bytes:  # else it was noted as cut short
                what = f"the {sections.kind_name(kind)} section does not match its checksum"
                self._note(section.offset, what)
            return
        start = section.payload_offset
        try:
            if kind in _JSON_KINDS and section.payload_bytes > layout.MAX_JSON_BYTES:
                raise ValueError(f"{section.payload_bytes} bytes are too many")
            _READERS[SectionKind(kind)](self, self._data[start : start + section.payload_bytes])
        except ValueError as error:
            self._note(section.offset, f"the {sections.kind_name(kind)} section: {error}")

    def _add_meta(self, payload: bytes) -> None:
        self._meta = payloads.decode_meta(payload)

    def _add_sites(self, payload: bytes) -> None:
        self._site_blocks.append(payloads.decode_sites(payload))

    def _add_symbols(self, payload: bytes) -> None:
        entries, names = payloads.decode_symbols(payload)
        self._symbol_blocks.append(entries)
        self.symbol_names += names

    def _add_modules(self, payload: bytes) -> None:
        self.modules += payloads.decode_modules(payload)

    def _add_tasks(self, payload: bytes) -> None:
        self.tasks += payloads.decode_tasks(payload)

    def _add_clock(self, payload: bytes) -> None:
        self._pairs += payloads.decode_clock(payload)

    def _add_losses(self, payload: bytes) -> None:
        self._losses.update({cpu.cpu: cpu for cpu in payloads.decode_losses(payload)})

    def _add_event(self, payload: bytes) -> None:
        self.events.append(payloads.decode_json_object(payload))

    def _meta_of_records(self) -> payloads.TraceMeta:
        self._note(layout.FILE_HEADER.itemsize, "no META section can be read")
        meta = payloads.TraceMeta(record_bytes=24, capacity=1, nr_cpus=1)
        if not len(self._places):
            return meta
        nr_cpus = 1 + int(self._places["cpu"].max())
        for place in self._places:
            section = self._section_of(place)
            head = None if section is None else self._head(section)
            if head is not None:
                return dataclasses.replace(
                    meta, record_bytes=head.record_bytes, capacity=head.capacity, nr_cpus=nr_cpus
                )
        return dataclasses.replace(meta, nr_cpus=nr_cpus)

    def _clock(self) -> Clock:
        try:
            return Clock(self._pairs, tsc_hz=self.meta.tsc_hz)
        except ValueError:
            if len(self._places) and self.has_time:
                self._note(0, "no CLOCK section can be read: times are ticks, not nanoseconds")
            return Clock([ClockPair(0, 0, 0)], tsc_hz=1_000_000_000)

    def _section_of(self, place: np.void) -> Section | None:
        offset = int(place["offset"])
        section = sections.section_at(self._data, offset, self._file_id)
        if section is None or section.kind not in tracefile_records.KINDS:
            name = sections.kind_name(int(place["kind"]))
            self._note(offset, f"the {name} section has no valid header")
            return None
        return section._replace(available=min(section.available, int(place["payload_bytes"])))

    def _head(self, section: Section) -> RecordsHead | None:
        try:
            return tracefile_records.read_head(self._data, section)
        except ValueError as error:
            self._note(section.offset, str(error))
            return None

    def _chosen(self, only: Addresses | None) -> _Chosen | None:
        return None if only is None else self._key_table.chosen(only)

    def _section_events(self, place: np.void, chosen: _Chosen | None) -> Iterator[Events]:
        section = self._section_of(place)
        head = None if section is None else self._head(section)
        if section is None or head is None:
            return
        try:
            for records in self._good_records(section, head):
                if chosen is not None:
                    records = records[chosen(records["key"])]
                if chosen is None or len(records):
                    yield self._decode(records, head)
        except ValueError as error:
            self._note(section.offset, str(error))

    def _good_records(self, section: Section, head: RecordsHead) -> Iterator[NDArray[np.void]]:
        # the records of a PACKED section match its checksum, whatever follows it
        suspect = section.offset in self._suspect and section.kind == SectionKind.RECORDS
        for position, records in tracefile_records.chunks(self._data, section, head):
            if not suspect and tracefile_records.all_laps_fit(
                records["word"], position, head.capacity
            ):
                yield records
                continue
            fits = tracefile_records.laps_fit(records["word"], position, head.capacity)
            if suspect:
                fits &= self._plausible(records)
            if suspect and not fits.all():
                # bytes are missing, or too many, before this one: nothing after it is a record
                keep = int(np.argmin(fits))
                self.torn += head.first_position + head.count - position - keep
                yield records[:keep]
                return
            self.torn += len(fits) - int(np.count_nonzero(fits))
            yield records[fits]

    def _plausible(self, records: NDArray[np.void]) -> NDArray[np.bool_]:
        # what holds for every record and seldom for bytes at the wrong place
        tids = np.asarray((records["word"] & np.uint32(TID_MASK)) != 0, np.bool_)
        if not len(self._key_table):
            return tids
        known = self._key_table.ips(np.array(records["key"])) != 0
        return np.asarray(tids & known, np.bool_)

    def _decode(self, records: NDArray[np.void], head: RecordsHead) -> Events:
        # every column is a copy, so that nothing keeps the file mapped
        key = np.array(records["key"])
        time = np.array(records["time"])
        counts = time.astype(np.int64) - head.capacity  # positions begin there
        names = records.dtype.names or ()
        return Events(
            time_ns=self.clock.monotonic_ns(time) if self.has_time else counts,
            cpu=np.full(len(records), head.cpu, np.uint16),
            tid=records["word"] & np.uint32(TID_MASK),
            ip=self._key_table.ips(key),
            parent_ip=np.array(records["parent_ip"]) if "parent_ip" in names else None,
            key=key,
        )

    def _within(
        self, parts: Iterator[Events], start_ns: int | None, end_ns: int | None
    ) -> Iterator[Events]:
        if not self.has_time and (start_ns, end_ns) != (None, None):
            raise BadInput(
                f"{self.path} has no times", cause=f"it was recorded with --clock {COUNTER}"
            )
        return within(parts, start_ns, end_ns)

    def _note(self, offset: int, what: str) -> None:
        # once for each offset, though a section may be read many times; bounded in hostile files
        if offset in self._damaged_at or len(self.damage) >= _MAX_DAMAGE:
            return
        self._damaged_at.add(offset)
        self.damage.append(Damage(offset, what))


def within(parts: Iterator[Events], start_ns: int | None, end_ns: int | None) -> Iterator[Events]:
    """The events with start_ns <= time_ns < end_ns, None being no bound."""
    for events in parts:
        if start_ns is None and end_ns is None:
            yield events
            continue
        inside = np.ones(len(events), np.bool_)
        if start_ns is not None:
            inside &= events.time_ns >= start_ns
        if end_ns is not None:
            inside &= events.time_ns < end_ns
        if inside.any():
            yield events.take(inside)


_READERS = {
    SectionKind.META: TraceReader._add_meta,
    SectionKind.SITES: TraceReader._add_sites,
    SectionKind.SYMBOLS: TraceReader._add_symbols,
    SectionKind.MODULES: TraceReader._add_modules,
    SectionKind.TASKS: TraceReader._add_tasks,
    SectionKind.CLOCK: TraceReader._add_clock,
    SectionKind.LOSSES: TraceReader._add_losses,
    SectionKind.EVENTS: TraceReader._add_event,
}

_JSON_KINDS = (SectionKind.META, SectionKind.MODULES, SectionKind.EVENTS)


_Chosen = Callable[[NDArray[np.uint32]], NDArray[np.bool_]]


class _KeyTable:
    # site key -> ip; keys count up from 0, so a plain array is the rule

    def __init__(self, blocks: list[NDArray[np.void]]) -> None:
        entries = np.concatenate(blocks) if blocks else np.empty(0, layout.SITE_ENTRY)
        self._length = len(entries)
        self._dense: Addresses | None = None
        if not len(entries) or int(entries["key"].max()) < _DENSE_KEYS:
            size = 1 + (int(entries["key"].max()) if len(entries) else 0)
            # one more than the greatest key: the ip of all keys that are not known
            self._dense = np.zeros(size + 1, np.uint64)
            self._dense[entries["key"]] = entries["ip"]
            return
        # the last entry of a key holds, as in the dense table
        self._keys, last = np.unique(entries["key"][::-1], return_index=True)
        self._ips = entries["ip"][::-1][last]

    def __len__(self) -> int:
        return self._length

    def entries(self) -> Addresses:
        if self._dense is not None:
            return np.unique(self._dense)
        return np.unique(np.append(self._ips, np.uint64(0)))

    def chosen(self, only: Addresses) -> _Chosen:
        if self._dense is None:
            return lambda keys: np.isin(self.ips(keys), only)
        wanted = np.isin(self._dense, only)
        return lambda keys: wanted.take(keys, mode="clip")

    def ips(self, keys: NDArray[np.uint32]) -> Addresses:
        if self._dense is not None:
            return self._dense.take(keys, mode="clip")
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._ips[place], np.uint64(0))


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            source = file if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else _spooled(file)
            if os.fstat(source.fileno()).st_size == 0:
                raise TraceFileError(
                    f"cannot read {path}", cause="it is empty", remedy="record again"
                )
            return mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ)
    except OSError as error:
        raise TraceFileError(
            f"cannot read {path}",
            cause=os.strerror(error.errno or 0).lower(),
            remedy="fentry record, or the name of a trace with -i",
        ) from error


def _spooled(file: BinaryIO) -> BinaryIO:
    # a pipe cannot be mapped: its bytes go to a file without a name
    spool = tempfile.TemporaryFile()
    shutil.copyfileobj(file, spool, 1 << 20)
    spool.flush()
    return spool


def _nothing(path: Path, header_damaged: bool) -> TraceFileError:
    if header_damaged:
        return TraceFileError(
            f"cannot read {path}",
            cause="it is not a fentry trace, or nothing of it is whole",
            remedy="the name of a trace with -i",
        )
    return TraceFileError(
        f"cannot read {path}",
        cause="no section of it is whole: recording was cut off, or the file is damaged",
        remedy="record again",
    )
