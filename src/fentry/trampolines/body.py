"""What a trampoline does at a call: bodies as data, and the target's traits they depend on."""

from __future__ import annotations

from dataclasses import dataclass

from fentry.ring.layout import CLOCK_TSC
from fentry.x86.calls import Vectors
from fentry.x86.xstate import area_bytes

RSEQ_SIGNATURE = 0x53053053  # what glibc registers on x86: sysdeps/unix/sysv/linux/x86/bits/rseq.h


@dataclass(frozen=True, slots=True)
class Traits:
    """What generated code may use in this target; found out at attach.

    `rseq_offset` is where a thread's rseq area lies from its fs base, None if threads have none
    or some have no fs base.
    `tid_offset` likewise for the thread's tid, None where no such word is known.
    `xstate_mask` says which vector and x87 state the kernel has enabled, as XCR0 numbers it (SDM
    Vol. 1, 13.1); 0 where there is no XSAVE. `xsavec`: it can be saved in the compacted format.
    `one_node`: the number that RDPID reads is that of the CPU, without a NUMA node's above it.
    """

    rdpid: bool = True
    fsgsbase: bool = True
    rseq_offset: int | None = None
    tid_offset: int | None = None
    xstate_mask: int = 0
    xsavec: bool = False
    one_node: bool = False

    @property
    def xstate_bytes(self) -> int:
        """The most that such state takes."""
        return area_bytes(self.xstate_mask, compact=self.xsavec)


@dataclass(frozen=True, slots=True)
class RecordBody:
    """Write {time, site key, tid} and perhaps parent_ip into the ring of the CPU.

    Addresses are in the target: `lines` of the first CpuLine, `records` of CPU 0's records,
    `room` of the ring's room in the control page: 0 in a forked child, and where nothing is to be
    recorded.  A CPU's tail lies `tail` bytes behind its line, another CPU's line `cpu_bytes`.
    `threads` is the table of those threads whose calls are recorded, 0 for all.  `overwrites` and
    `clock` are the ring's; `stray` is the line of the part that all share who cannot use their
    CPU's without a lock prefix, 0 where all use one.
    """

    lines: int
    records: int
    tail: int
    room: int
    cpu_bytes: int
    capacity: int
    record_bytes: int
    threads: int = 0
    overwrites: bool = False
    clock: int = CLOCK_TSC
    stray: int = 0


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


@dataclass(frozen=True, slots=True)
class CallBody:
    """Call a C function with (ip, parent_ip, op, regs), the kernel's ftrace_func_t.

    Addresses are in the target: `function`, `ops` of its struct ftrace_ops, `in_flight` of how many
    calls run, `dropped` of how many the guard has skipped, `ips` of the ip in the registry's first
    site row, which are `stride` bytes apart. `vectors`: what of vector, x87 and MXCSR state is
    saved around it. `redirects`: it may change registers, and ip (SAVE_REGS and IPMODIFY). `guard`
    is the address of the table of active calls, 0 without a guard. `threads` as of RecordBody.
    """

    function: int
    ops: int
    in_flight: int
    dropped: int
    ips: int
    stride: int
    vectors: Vectors = Vectors.NONE
    redirects: bool = False
    guard: int = 0
    threads: int = 0


@dataclass(frozen=True, slots=True)
class DirectBody:
    """Go on in the user's own code at `target`, with everything as at the entry; the last of a
    set."""

    target: int


Body = RecordBody | CountBody | CallBody | DirectBody
