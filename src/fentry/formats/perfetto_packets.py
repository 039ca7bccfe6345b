"""Packets of Perfetto's trace format, one function a kind; which ones and when is perfetto.py.

Source of all field numbers: the .proto files of Perfetto v52 below protos/perfetto/trace
(trace_packet, clock_snapshot, track_event/*, interned_data, system_info, perfetto/trace_stats);
a constant has the name of its message and its field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from fentry.formats.wire import Part, Rows, Slot, message, number, row

TRACE_PACKET = 1

PACKET_CLOCK_SNAPSHOT = 6
PACKET_TIMESTAMP = 8
PACKET_SEQUENCE_ID = 10
PACKET_TRACK_EVENT = 11
PACKET_INTERNED_DATA = 12
PACKET_SEQUENCE_FLAGS = 13
PACKET_TRACE_STATS = 35
PACKET_SYSTEM_INFO = 45
PACKET_DEFAULTS = 59
PACKET_TRACK_DESCRIPTOR = 60
STATE_CLEARED, NEEDS_STATE = 1, 2

DEFAULTS_TIMESTAMP_CLOCK_ID = 58

SNAPSHOT_CLOCKS, SNAPSHOT_PRIMARY_CLOCK = 1, 2
CLOCK_ID, CLOCK_TIMESTAMP = 1, 2
REALTIME, MONOTONIC = 1, 3

TRACK_UUID, TRACK_NAME, TRACK_PROCESS, TRACK_THREAD, TRACK_PARENT_UUID = 1, 2, 3, 4, 5
PROCESS_PID, PROCESS_NAME = 1, 6
THREAD_PID, THREAD_TID, THREAD_NAME = 1, 2, 5

EVENT_CATEGORY_IIDS, EVENT_ANNOTATIONS, EVENT_TYPE = 3, 4, 9
EVENT_NAME_IID, EVENT_TRACK_UUID, EVENT_NAME = 10, 11, 23
SLICE_BEGIN, SLICE_END, INSTANT = 1, 2, 3
ANNOTATION_NAME_IID, ANNOTATION_INT, ANNOTATION_STRING = 1, 4, 6
ANNOTATION_NAME, ANNOTATION_STRING_IID = 10, 17

INTERNED_CATEGORIES, INTERNED_NAMES, INTERNED_ANNOTATION_NAMES, INTERNED_STRINGS = 1, 2, 3, 29
IID, INTERNED_TEXT = 1, 2
PARENT_IID = 1

SYSTEM_UTSNAME = 1
UTSNAME_SYSNAME, UTSNAME_RELEASE, UTSNAME_MACHINE = 1, 3, 4

STATS_BUFFERS = 1
BUFFER_CHUNKS_OVERWRITTEN, BUFFER_CHUNKS_DISCARDED = 3, 18


def clock_snapshot(monotonic_ns: int, realtime_ns: int) -> bytes:
    """One moment on two clocks; a realtime of 0 is not known. Times of the trace are monotonic."""
    clocks = [(MONOTONIC, monotonic_ns), (REALTIME, realtime_ns)][: 2 if realtime_ns else 1]
    parts = [
        message(SNAPSHOT_CLOCKS, number(CLOCK_ID, clock), number(CLOCK_TIMESTAMP, time_ns))
        for clock, time_ns in clocks
    ]
    primary = number(SNAPSHOT_PRIMARY_CLOCK, MONOTONIC)
    return _packet(message(PACKET_CLOCK_SNAPSHOT, *parts, primary))


def cleared_state() -> bytes:
    """From here on nothing is interned, and timestamps are monotonic."""
    return _packet(
        number(PACKET_SEQUENCE_FLAGS, STATE_CLEARED | NEEDS_STATE),
        message(PACKET_DEFAULTS, number(DEFAULTS_TIMESTAMP_CLOCK_ID, MONOTONIC)),
        message(PACKET_INTERNED_DATA, interned(INTERNED_ANNOTATION_NAMES, PARENT_IID, b"parent")),
    )


def interned(kind: int, iid: int, text: bytes) -> bytes:
    """What an iid of a kind (INTERNED_...) stands for, until the state is cleared."""
    return message(kind, number(IID, iid), message(INTERNED_TEXT, text))


def interned_data(entries: Iterable[bytes]) -> bytes:
    """The packet of what interned() made."""
    flags = number(PACKET_SEQUENCE_FLAGS, NEEDS_STATE)
    return _packet(flags, message(PACKET_INTERNED_DATA, *entries))


def process_track(uuid: int, pid: int, name: bytes) -> bytes:
    """Names a process."""
    process = number(PROCESS_PID, pid), message(PROCESS_NAME, name)
    return _track(uuid, message(TRACK_PROCESS, *process))


def thread_track(uuid: int, pid: int, tid: int, name: bytes) -> bytes:
    """The track of a thread."""
    thread = number(THREAD_PID, pid), number(THREAD_TID, tid), message(THREAD_NAME, name)
    return _track(uuid, message(TRACK_THREAD, *thread))


def child_track(uuid: int, parent_uuid: int, name: bytes) -> bytes:
    """A track below another one."""
    return _track(uuid, number(TRACK_PARENT_UUID, parent_uuid), message(TRACK_NAME, name))


def event(
    kind: int,
    track_uuid: int,
    time_ns: int,
    name: bytes = b"",
    values: Mapping[str, int | bytes] = MappingProxyType({}),
) -> bytes:
    """A single event of a kind (SLICE_BEGIN ...), with values as annotations."""
    parts = [number(EVENT_TYPE, kind), number(EVENT_TRACK_UUID, track_uuid)]
    if name:
        parts.append(message(EVENT_NAME, name))
    parts += [_annotation(key, value) for key, value in values.items()]
    return _packet(
        number(PACKET_TIMESTAMP, time_ns),
        number(PACKET_SEQUENCE_FLAGS, NEEDS_STATE),
        message(PACKET_TRACK_EVENT, *parts),
    )


def calls(*, with_parent: bool) -> Rows:
    """Instants of many calls: columns time_ns, track, name, category and parent (the last four are
    a uuid of 56 bits and iids of 28)."""
    parts: list[Part] = [
        number(EVENT_TYPE, INSTANT),
        Slot(EVENT_TRACK_UUID, "track", 8),
        Slot(EVENT_NAME_IID, "name", 4),
        Slot(EVENT_CATEGORY_IIDS, "category", 4),
    ]
    if with_parent:
        parent = number(ANNOTATION_NAME_IID, PARENT_IID), Slot(ANNOTATION_STRING_IID, "parent", 4)
        parts += row(EVENT_ANNOTATIONS, *parent)
    return Rows(
        row(
            TRACE_PACKET,
            Slot(PACKET_TIMESTAMP, "time_ns", 10),
            number(PACKET_SEQUENCE_ID, 1),
            number(PACKET_SEQUENCE_FLAGS, NEEDS_STATE),
            *row(PACKET_TRACK_EVENT, *parts),
        )
    )


def system_info(release: bytes) -> bytes:
    """The kernel that the trace was made with."""
    names = (
        message(UTSNAME_SYSNAME, b"Linux"),
        message(UTSNAME_RELEASE, release),
        message(UTSNAME_MACHINE, b"x86_64"),
    )
    return _packet(message(PACKET_SYSTEM_INFO, message(SYSTEM_UTSNAME, *names)))


def trace_stats(buffers: Sequence[Mapping[int, int]]) -> bytes:
    """Counts of every buffer (BUFFER_...)."""
    parts = [
        message(STATS_BUFFERS, *(number(*count) for count in buffer.items())) for buffer in buffers
    ]
    return _packet(message(PACKET_TRACE_STATS, *parts))


def _packet(*parts: bytes) -> bytes:
    return message(TRACE_PACKET, number(PACKET_SEQUENCE_ID, 1), *parts)


def _track(uuid: int, *parts: bytes) -> bytes:
    return _packet(message(PACKET_TRACK_DESCRIPTOR, number(TRACK_UUID, uuid), *parts))


def _annotation(name: str, value: int | bytes) -> bytes:
    if isinstance(value, int):
        content = number(ANNOTATION_INT, value)
    else:
        content = message(ANNOTATION_STRING, value)
    return message(EVENT_ANNOTATIONS, message(ANNOTATION_NAME, name.encode()), content)
