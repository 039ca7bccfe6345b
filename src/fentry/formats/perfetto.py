"""Perfetto's own trace format: each call an instant on the track of its thread.

One packet sequence holds everything.  A call's function is its name, the file that has it its
category, its caller the annotation `parent`.  Beside them: tracks of what was lost on each CPU and
of what happened to the trace, and all losses as counts of buffers, a buffer being a CPU's ring.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from fentry.formats import perfetto_packets as packets
from fentry.formats.exports import Source, need_times
from fentry.formats.gaps import Gap, gaps
from fentry.formats.perfetto_state import Names, Tracks, text
from fentry.formats.tracefile_payloads import CpuLosses, Json
from fentry.formats.tracefile_reader import TraceReader

_AT_ONCE = 65536
_MAX_CPU = 0xFFFF


def write(source: Source, out: Path) -> None:
    """Write a file that ui.perfetto.dev and trace_processor open.

    Raises BadInput without times.
    """
    need_times(source, "perfetto")
    trace = source.trace
    tracks = Tracks(source)
    with out.open("wb") as file:
        for pair in trace.clock.pairs:
            file.write(packets.clock_snapshot(pair.monotonic_ns, pair.realtime_ns))
        file.write(packets.system_info(text(trace.meta.kernel)))
        span = _write_calls(source, tracks, file)
        if span is not None:
            _Beside(tracks, file, *span).write(trace)
        file.write(packets.trace_stats(_buffers(trace.losses)))


def _write_calls(source: Source, tracks: Tracks, file: BinaryIO) -> tuple[int, int] | None:
    # the times of the first and the last call, None where there is none
    rows = {flag: packets.calls(with_parent=flag) for flag in (False, True)}
    names = Names(source.symbols)
    span = None
    for batch in source.selected.merged():
        for start in range(0, len(batch), _AT_ONCE):
            events = batch.take(slice(start, start + _AT_ONCE))
            times = int(events.time_ns[0]), int(events.time_ns[-1])
            span = times if span is None else (span[0], times[1])
            columns = {
                "time_ns": events.time_ns,
                "track": tracks.of_threads(events),
                **names.columns(events),
            }
            file.write(b"".join([*names.take_new(), *tracks.take_new()]))
            file.write(rows["parent" in columns].of(columns))
    return span


class _Beside:
    # What is to be seen beside the calls, as far as it lies between the first and the last one.

    def __init__(self, tracks: Tracks, file: BinaryIO, first_ns: int, last_ns: int) -> None:
        self._tracks = tracks
        self._file = file
        self._first_ns, self._last_ns = first_ns, last_ns
        self._uuids = dict[str, int]()

    def write(self, trace: TraceReader) -> None:
        for gap in gaps(trace):
            self._add_gap(gap)
        for cpu in trace.losses:
            self._add_losses(cpu)
        for happened in trace.events:
            self._add_event(happened)

    def _add_gap(self, gap: Gap) -> None:
        since_ns = max(gap.since_ns, self._first_ns)
        until_ns = min(max(gap.until_ns, since_ns), self._last_ns)
        if since_ns <= until_ns:
            track = self._track(f"CPU {gap.cpu} lost")
            name = b"%d calls" % gap.lost
            self._file.write(packets.event(packets.SLICE_BEGIN, track, since_ns, name))
            self._file.write(packets.event(packets.SLICE_END, track, until_ns))

    def _add_losses(self, cpu: CpuLosses) -> None:
        counts = cpu._asdict()
        counts = {name: counts[name] for name in ("dropped_events", "overrun", "incomplete")}
        if any(counts.values()):
            track = self._track(f"CPU {cpu.cpu} lost")
            name = b"in all until here"
            self._file.write(packets.event(packets.INSTANT, track, self._last_ns, name, counts))

    def _add_event(self, happened: dict[str, Json]) -> None:
        time_ns = happened.get("time_ns")
        if isinstance(time_ns, int) and self._first_ns <= time_ns <= self._last_ns:
            track = self._track("fentry")
            name = text(str(happened.get("kind")))
            values = {
                key: value if isinstance(value, int) else text(_as_text(value))
                for key, value in happened.items()
                if key not in ("kind", "time_ns")
            }
            self._file.write(packets.event(packets.INSTANT, track, time_ns, name, values))

    def _track(self, name: str) -> int:
        if name not in self._uuids:
            self._uuids[name] = self._tracks.add(name)
            self._file.write(b"".join(self._tracks.take_new()))
        return self._uuids[name]


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _buffers(losses: Sequence[CpuLosses]) -> list[dict[int, int]]:
    # a buffer for each CPU up to the last that is listed, the place in the list being its number;
    # what is no number of a CPU is not from us
    listed = {cpu.cpu: cpu for cpu in losses if cpu.cpu <= _MAX_CPU}
    return [
        {
            packets.BUFFER_CHUNKS_OVERWRITTEN: listed[number].overrun,
            packets.BUFFER_CHUNKS_DISCARDED: listed[number].dropped_events,
        }
        if number in listed
        else {}
        for number in range(max(listed, default=-1) + 1)
    ]
