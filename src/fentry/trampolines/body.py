"""What a trampoline does at a call: bodies as data, and the target's traits they depend on."""

from __future__ import annotations

from dataclasses import dataclass

RSEQ_SIGNATURE = 0x53053053  # what glibc registers on x86: sysdeps/unix/sysv/linux/x86/bits/rseq.h


@dataclass(frozen=True, slots=True)
class Traits:
    """What generated code may use in this target; found out at attach.

    `rseq_offset` is where a thread's rseq area lies from its fs base, None if threads have none
    or some have no fs base.
    `tid_offset` likewise for the thread's tid, None where no such word is known.
    """

    rdpid: bool = True
    fsgsbase: bool = True
    rseq_offset: int | None = None
    tid_offset: int | None = None


@dataclass(frozen=True, slots=True)
class RecordBody:
    """Write {time, site key, tid} and perhaps parent_ip into the ring of the CPU.

    Addresses are in the target: `lines` of the first CpuLine, `records` of CPU 0's records,
    `room` of the ring's room in the control page: 0 in a forked child, and where nothing is to be
    recorded.  A CPU's tail lies `tail` bytes behind its line.  `threads` is the table of those
    threads whose calls are recorded, 0 for all.
    """

    lines: int
    records: int
    tail: int
    room: int
    cpu_bytes: int
    capacity: int
    record_bytes: int
    threads: int = 0


@dataclass(frozen=True, slots=True)
class CountBody:
    """Add one to the counter of the site on this CPU.

    `bases` is the address of u64[nr_cpus], each CPU's counters or 0; `displacement` is where the
    counters of this op begin behind a base; `shared` is the address of the counters that
    threads without rseq change with a lock prefix; `control` of the magic in the control page, 0 in
    a forked child; `threads` as of RecordBody.
    """

    bases: int
    displacement: int
    shared: int
    control: int
    threads: int = 0


Body = RecordBody | CountBody
