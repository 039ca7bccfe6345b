"""Every offset of the registry, once (docs/formats/region.md is checked against it).

    offset            what
    0                 header, 4096 bytes: in it, at OWNERS_OFFSET, OWNER_ROWS owners
    4096              segments: SEGMENT_ROWS rows
    ops_offset        ops: OPS_ROWS rows
    trampolines_...   trampolines: TRAMPOLINE_ROWS rows
    sites_offset      sites: site_capacity rows

The control page (private, wiped in a forked child) and the tables of threads are laid out here as
well.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

MAGIC = int.from_bytes(b"FENTRYRG", "little")
VERSION = 8
PAGE = 4096

REGISTRY_NAME = b"fentry-registry"
RING_NAME = b"fentry-ring"
COUNTERS_NAME = b"fentry-counters"
THREADS_NAME = b"fentry-threads"
FOLLOW_NAME = b"fentry-follow"


class Kind(IntEnum):
    """What a segment is."""

    REGISTRY = 1
    RING = 2
    COUNTERS = 3
    CONTROL = 4
    CODE = 5
    THREADS = 6
    DATA = 7
    GUARD = 8
    FOLLOW = 9
    BASES = 10


class State(IntEnum):
    """State of a row: FREE rows hold nothing, PLANNED ones may or may not have come true."""

    FREE = 0
    PLANNED = 1
    LIVE = 2
    PARKED = 3


class TrampolineKind(IntEnum):
    """What a trampoline runs: exactly the ops of its row, or what its list says; DIRECT is code of
    the one ops itself, whose memory is not the trampoline's."""

    SET = 0
    LIST = 1
    DIRECT = 2


class SiteState(IntEnum):
    """What the text of a site is: the original, or a call or jump of ours."""

    FREE = 0
    NOP = 1
    CALL = 2
    GONE = 3  # another library lies there: the row is nobody's


class HeaderFlag(IntFlag):
    """Flags of the header: the off switch, no site calls anything whatever ops there are."""

    NONE = 0
    OFF = 1


class SiteFlag(IntFlag):
    """Flags of a site: it had an ops that could change what it does (IPMODIFY, DIRECT)."""

    NONE = 0
    MODIFIED = 1


HEADER_DTYPE = np.dtype(
    [
        ("magic", "<u8"),
        ("version", "<u4"),
        ("header_bytes", "<u4"),
        ("region_bytes", "<u8"),
        ("address", "<u8"),
        ("pid", "<i4"),
        ("nr_cpus", "<u4"),
        ("start_time", "<u8"),
        ("control_address", "<u8"),
        ("control_bytes", "<u8"),
        ("generation", "<u8"),
        ("next_id", "<u4"),
        ("turn", "<u4"),
        ("owners_offset", "<u8"),
        ("segments_offset", "<u8"),
        ("segment_rows", "<u4"),
        ("ops_rows", "<u4"),
        ("ops_offset", "<u8"),
        ("trampolines_offset", "<u8"),
        ("trampoline_rows", "<u4"),
        ("site_rows", "<u4"),
        ("sites_offset", "<u8"),
        ("sites_used", "<u4"),
        ("counters_used", "<u4"),
        ("flags", "<u4"),
        ("reserved", "<u4"),
    ]
)

# A controller (docs/design/controllers.md). Others name it by its number, from 1; 0 is nobody.
OWNER_DTYPE = np.dtype(
    [
        ("pid", "<i4"),
        ("state", "<u4"),
        ("start_time", "<u8"),
        ("namespace", "<u8"),
        ("serial", "<u8"),
        ("instances", "<u8"),
        ("top", "<u4"),
        ("reserved", "<u4"),
    ]
)

SEGMENT_DTYPE = np.dtype(
    [
        ("kind", "<u4"),
        ("state", "<u4"),
        ("address", "<u8"),
        ("bytes", "<u8"),
        ("used", "<u8"),
        ("instance", "<u4"),
        ("owner", "<u4"),
        ("name", "S24"),
    ]
)

OPS_DTYPE = np.dtype(
    [
        ("id", "<u4"),
        ("state", "<u4"),
        ("callback", "<u4"),
        ("flags", "<u4"),
        ("instance", "<u4"),
        ("nr_sites", "<u4"),
        ("owner", "<u4"),
        ("slot", "<u4"),
        ("replaces", "<u4"),
        ("reserved", "<u4"),
        ("filter", "S216"),
    ]
)

MAX_SET = 8

TRAMPOLINE_DTYPE = np.dtype(
    [
        ("address", "<u8"),
        ("bytes", "<u4"),
        ("state", "<u4"),
        ("section", "<u8"),
        ("nr_ops", "<u4"),
        ("kind", "<u4"),
        ("ops", "<u4", (MAX_SET,)),
    ]
)

# A list of ops (docs/design/list.md): rows in memory of an arena, up to one whose `body` is 0. The
# bit of a site in `bitmap` (bytes of 8 sites, lowest bit first) says whether the ops wants it.
LIST_DTYPE = np.dtype(
    [
        ("body", "<u8"),
        ("bitmap", "<u8"),
        ("id", "<u4"),
        ("sites", "<u4"),
        ("body_bytes", "<u4"),
        ("reserved", "<u4"),
    ]
)

SITE_DTYPE = np.dtype(
    [
        ("ip", "<u8"),
        ("patch", "<u8"),
        ("original", "V16"),
        ("pad", "<u8"),
        ("call", "<u8"),
        ("key", "<u4"),
        ("counter", "<u4"),
        ("kind", "u1"),
        ("window", "u1"),
        ("state", "u1"),
        ("carrier", "u1"),
        ("trampoline", "<u2"),
        ("part", "?"),
        ("flags", "u1"),
        ("hole", "<u8"),
        ("filler", "V16"),
    ]
)

OWNER_ROWS = 16
SEGMENT_ROWS = 254
OPS_ROWS = 1024
TRAMPOLINE_ROWS = 4096

OWNERS_OFFSET = 1024
SEGMENTS_OFFSET = PAGE
OPS_OFFSET = SEGMENTS_OFFSET + 4 * PAGE
TRAMPOLINES_OFFSET = OPS_OFFSET + OPS_ROWS * OPS_DTYPE.itemsize
SITES_OFFSET = TRAMPOLINES_OFFSET + TRAMPOLINE_ROWS * TRAMPOLINE_DTYPE.itemsize

# The control page: everything a forked child must not have.  Where children are followed
# (docs/design/forks.md), it holds the magic alone: the rooms are in a FOLLOW segment, which all
# processes share, the bases in a BASES segment, which each has a private copy of.  Both are laid
# out like this page; the magic of FOLLOW is 0 once nothing is to be recorded by anybody.
CONTROL_MAGIC = int.from_bytes(b"FENTRYON", "little")
CONTROL_MAGIC_OFFSET = 0
ROOMS_OFFSET = 64  # u64[MAX_RINGS]: the room of each ring
MAX_RINGS = 64
COUNTER_BASES_OFFSET = ROOMS_OFFSET + 8 * MAX_RINGS + 64
# u64[nr_cpus] for each owner: each CPU's counters; the words before stay 0 (rseq's cpu_id is -1 or
# -2 in a thread that is not registered)


# Where a counting trampoline finds the index of the site whose pad called it: so many bytes
# before the return address (sites/pad.py lays pads out).
INDEX_BEFORE_RETURN = 13
# And so many before it, how far above its slot of parent_ip rsp was when the site was reached.
STEP_BEFORE_RETURN = 9


# A table of threads: which of them one ops sees (docs/design/threads.md).  A header page, then one
# byte for each tid; each nibble of it is one of two sets.  THREADS_WORD, u16, says which set is in
# force: its low byte is what all threads are by default, its high byte the bit that counts.
MAX_TIDS = 1 << 22  # PID_MAX_LIMIT: include/linux/threads.h
THREADS_WORD_OFFSET = 0
THREAD_SETS_OFFSET = 1024  # two rows of THREAD_SET_DTYPE, one for each set
THREAD_BYTES_OFFSET = PAGE
THREADS_BYTES = THREAD_BYTES_OFFSET + MAX_TIDS

THREAD_SET_DTYPE = np.dtype(
    [
        ("start_time", "<u8"),
        ("flags", "<u4"),
        ("reserved", "<u4"),
        ("names", "S1008"),
    ]
)


class ThreadBit(IntFlag):
    """Bits of a nibble: not treated as the default, listed by the user, listed as not traced, and
    listed but ended since."""

    DIFFERS = 1
    LISTED = 2
    NOTRACE = 4
    ENDED = 8


class ThreadSetFlag(IntFlag):
    """Flags of a set: there is a list, so that others are not traced; new threads are."""

    NONE = 0
    ONLY = 1
    FOLLOW = 2


# A DATA segment is the writable memory of one C function: this row, then its data and the private
# memory of its ops.  `aliases` are other ids that they have or had, 0 for none.
ALIASES = 8
DATA_DTYPE = np.dtype(
    [
        ("private", "<u8"),
        ("flags", "<u8"),
        ("id", "<u8"),
        ("code", "<u8"),
        ("code_bytes", "<u4"),
        ("entry", "<u4"),
        ("private_bytes", "<u4"),
        ("vectors", "<u4"),
        ("leaves", "<u4"),
        ("calls", "<u4"),
        ("reserved", "V8"),
        ("in_flight", "<u8"),
        ("dropped", "<u8"),
        ("aliases", "<u4", (ALIASES,)),
        ("reserved2", "V16"),
    ]
)
DATA_HEADER_BYTES = DATA_DTYPE.itemsize

# The GUARD segment: a table of the C functions that run just now, {fs base, rsp} each, in buckets
# of two cache lines.
GUARD_BUCKETS = 256
GUARD_SLOTS = 8
GUARD_BYTES = GUARD_BUCKETS * GUARD_SLOTS * 16


def room_offset(ring: int) -> int:
    """Offset of the room of the `ring`-th ring."""
    return ROOMS_OFFSET + 8 * ring


def rooms_span() -> slice:
    """Where the rooms of all rings are."""
    return slice(ROOMS_OFFSET, room_offset(MAX_RINGS))


def counter_bases_offset(owner: int, nr_cpus: int) -> int:
    """Offset of the bases of the counters of an owner, by its number."""
    return COUNTER_BASES_OFFSET + (owner - 1) * (8 * nr_cpus + 64)


def control_bytes(nr_cpus: int) -> int:
    """Size of the control segment."""
    return -(-counter_bases_offset(OWNER_ROWS + 1, nr_cpus) // PAGE) * PAGE


def registry_bytes(site_rows: int) -> int:
    """Size of a registry with room for `site_rows` sites."""
    return -(-(SITES_OFFSET + site_rows * SITE_DTYPE.itemsize) // PAGE) * PAGE
