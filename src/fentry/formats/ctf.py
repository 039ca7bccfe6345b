"""Common Trace Format 1.8: a folder of a text, `metadata`, and one file of packets for each CPU.

Source: Common Trace Format Specification v1.8.2 (diamon.org/ctf); its sections are in parentheses.
The text is made in ctf_metadata, events in ctf_events.  A packet's head, PACKET (5.1 and 5.2),
packed and little-endian, stands before its events:

    offset  size  name
    0       4     magic             0xC1FC1FC1
    4       16    uuid              of the trace, as in its metadata
    20      4     stream_id         0
    24      8     timestamp_begin   of its first event; without times a count
    32      8     timestamp_end     of its last event; without times a count
    40      8     content_size      in bits, with this head
    48      8     packet_size       the same: there is no padding
    56      8     packet_seq_num    packets of this CPU before
    64      8     events_discarded  calls of this CPU that are lost so far
    72      4     cpu_id
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fentry.formats.ctf_events import EventRows, Rows
from fentry.formats.ctf_metadata import metadata
from fentry.formats.exports import Source

PACKET = np.dtype(
    [
        ("magic", "<u4"),
        ("uuid", "V16"),
        ("stream_id", "<u4"),
        ("timestamp_begin", "<u8"),
        ("timestamp_end", "<u8"),
        ("content_size", "<u8"),
        ("packet_size", "<u8"),
        ("packet_seq_num", "<u8"),
        ("events_discarded", "<u8"),
        ("cpu_id", "<u4"),
    ]
)
_LOST_AT = 64  # offset of events_discarded

_MAGIC = 0xC1FC1FC1
_AT_ONCE = 65536
_MOST = (1 << 64) - 1


def write(source: Source, out: Path) -> None:
    """Write a folder that babeltrace2 and Trace Compass open.

    Without times there is no clock, and a count in the place of each time. An event that comes out
    of its order (TraceReader.late) gets the time of the one before it: in a stream, times never go
    back (5). What a CPU lost has no time in a trace; it stands in its last packet.
    """
    out.mkdir()
    trace, trace_id, rows = source.trace, uuid.uuid4(), EventRows(source)
    streams: dict[int, _Stream] = {}
    for cpu, part in _by_cpu(source, rows):
        if cpu not in streams:
            streams[cpu] = _Stream(out, cpu, trace_id, start=int(part["timestamp"][0]))
        streams[cpu].add(part)
    moments = [pair.monotonic_ns for pair in trace.clock.pairs] if trace.has_time else [0]
    for losses in trace.losses:
        if lost := losses.dropped_events + losses.overrun + losses.incomplete:
            if losses.cpu not in streams:
                streams[losses.cpu] = _Stream(out, losses.cpu, trace_id, start=moments[0])
                streams[losses.cpu].add_empty(moments[-1])
            streams[losses.cpu].set_lost(lost)
    (out / "metadata").write_text(metadata(trace, trace_id, rows.labels()), encoding="utf-8")


def _by_cpu(source: Source, rows: EventRows) -> Iterator[tuple[int, Rows]]:
    for events in source.selected.merged():
        for start in range(0, len(events), _AT_ONCE):
            part = events.take(slice(start, start + _AT_ONCE))
            made, counts = rows.of(part), np.bincount(part.cpu)
            cpus = np.flatnonzero(counts)
            if len(cpus) > 1:
                made = made[np.argsort(part.cpu, kind="stable")]
            pieces = np.split(made, np.cumsum(counts[cpus])[:-1])
            yield from zip(cpus.tolist(), pieces, strict=True)


class _Stream:
    # The file of one CPU. A reader takes losses as the difference of two packets, so the first one
    # is empty and has lost nothing.

    def __init__(self, folder: Path, cpu: int, trace_id: uuid.UUID, *, start: int) -> None:
        self._path = folder / f"cpu_{cpu}"
        self._head = np.zeros(1, PACKET)
        self._head["magic"] = _MAGIC
        self._head["uuid"] = np.frombuffer(trace_id.bytes, "V16")
        self._head["cpu_id"] = cpu
        self._newest = max(start, 0)
        self._last_at = self._end = 0
        self.add_empty(start)

    def add(self, rows: Rows) -> None:
        # a packet of one event or more
        times = np.maximum(rows["timestamp"], np.uint64(self._newest))
        rows["timestamp"] = np.maximum.accumulate(times)
        self._write(int(rows["timestamp"][0]), int(rows["timestamp"][-1]), rows)

    def add_empty(self, end: int) -> None:
        self._write(self._newest, max(self._newest, end), np.empty(0, np.void))

    def set_lost(self, lost: int) -> None:
        # only the last packet has lost something
        with self._path.open("r+b") as file:
            file.seek(self._last_at + _LOST_AT)
            file.write(min(lost, _MOST).to_bytes(8, "little"))

    def _write(self, begin: int, end: int, rows: Rows) -> None:
        size = PACKET.itemsize + rows.nbytes
        self._head["timestamp_begin"], self._head["timestamp_end"] = begin, end
        self._head["content_size"] = self._head["packet_size"] = size * 8
        with self._path.open("ab") as file:  # not kept open: there may be more CPUs than files
            file.write(self._head.tobytes() + rows.tobytes())
        self._head["packet_seq_num"] += 1
        self._newest = end
        self._last_at, self._end = self._end, self._end + size
