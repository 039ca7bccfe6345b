"""Every offset and bit width of the ring, once (docs/formats/ring_buffer.md is checked against it).

A ring is one shared segment: a header page, then a part for each possible CPU: a cache line that
the writers change, one that only the reader changes, and the records.

    offset                               what                         written by
    0                                    RingHeader, 4096 bytes       controller, once
    cpu_lines_offset + cpu * cpu_bytes   CpuLine: head, dropped       trampolines
    tails_offset + cpu * cpu_bytes       TailLine: tail               reader
    records_offset + cpu * cpu_bytes     records of the CPU           trampolines

Where positions are taken without a lock prefix there is one part more: of threads that cannot do
that in their CPU's (strays).

Positions count records and never wrap in 64 bits.  They begin at `capacity`, so that the zero
bytes of fresh memory, lap 0, are not taken for records.  A writer may take position p while
p < tail + room; room is a word of the control page, which a forked child does not have: the
capacity when full rings discard, NO_LIMIT when they overwrite.  The record at position p of a
CPU lies at index p % capacity and carries lap = (p // capacity) % LAPS in its word, which is
stored last: on x86 stores become visible in program order (Intel SDM Vol. 3, 9.2.2), so a
matching lap means a complete record.
"""

from __future__ import annotations

import numpy as np

MAGIC = int.from_bytes(b"FENTRING", "little")
VERSION = 3

HEADER_BYTES = 4096
LINE_BYTES = 64
TAIL_AFTER_LINE = 128  # not in the pair of lines that processors fetch together
RECORDS_AFTER_LINE = 256

TID_BITS = 22
TID_MASK = (1 << TID_BITS) - 1  # PID_MAX_LIMIT is 4 * 1024 * 1024: include/linux/threads.h
LAP_BITS = 10
LAPS = 1 << LAP_BITS

# One moment on three clocks: tsc ticks, ns of CLOCK_MONOTONIC, ns of CLOCK_REALTIME; 0 is none.
PAIR_DTYPE = np.dtype([("tsc", "<u8"), ("monotonic_ns", "<u8"), ("realtime_ns", "<u8")])

HEADER_DTYPE = np.dtype(
    [
        ("magic", "<u8"),
        ("version", "<u4"),
        ("header_bytes", "<u4"),
        ("record_bytes", "<u4"),
        ("nr_cpus", "<u4"),
        ("capacity", "<u8"),
        ("cpu_lines_offset", "<u8"),
        ("tails_offset", "<u8"),
        ("records_offset", "<u8"),
        ("cpu_bytes", "<u8"),
        ("segment_bytes", "<u8"),
        ("mode", "<u4"),
        ("clock", "<u4"),
        ("room_address", "<u8"),
        ("address", "<u8"),
        ("has_strays", "<u4"),
        ("reserved", "<u4"),
        ("pairs", PAIR_DTYPE, (2,)),
    ]
)

CPU_LINE_DTYPE = np.dtype(
    {"names": ["head", "dropped"], "formats": ["<u8", "<u8"], "offsets": [0, 8], "itemsize": 64}
)
TAIL_LINE_DTYPE = np.dtype({"names": ["tail"], "formats": ["<u8"], "offsets": [0], "itemsize": 64})

HEAD_OFFSET = 0
DROPPED_OFFSET = 8
TAIL_OFFSET = 0

RECORD16 = np.dtype([("time", "<u8"), ("key", "<u4"), ("word", "<u4")])
RECORD24 = np.dtype([("time", "<u8"), ("key", "<u4"), ("word", "<u4"), ("parent_ip", "<u8")])

TIME_OFFSET = 0
META_OFFSET = 8  # key and word
WORD_OFFSET = 12
PARENT_OFFSET = 16

MODE_DISCARD = 0
MODE_OVERWRITE = 1

CLOCK_TSC = 0
CLOCK_PERCPU_COUNTER = 1

CLOCK_NAMES = ("tsc", "percpu-counter")
"""By number."""

STRAYS = 64
"""Places of a full ring that are kept free where there is a part for strays: a vfork child that
was preempted between looking for room and taking it may take one too many."""

NO_LIMIT = 1 << 62


def record_dtype(record_bytes: int) -> np.dtype[np.void]:
    """The dtype of records of 16 or 24 bytes."""
    return {16: RECORD16, 24: RECORD24}[record_bytes]


def round_up(value: int, unit: int) -> int:
    """`value` rounded up to a multiple of `unit`."""
    return -(-value // unit) * unit
