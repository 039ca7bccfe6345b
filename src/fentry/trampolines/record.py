"""Records: a place is taken in the part of the CPU, and written.

With a time, or without: then the position in the part of the CPU is the per-CPU counter, and what
the clock read hides is seen.
"""

from __future__ import annotations

from collections.abc import Callable

from fentry.ring import layout as ring
from fentry.trampolines.body import RecordBody, Traits
from fentry.trampolines.caller import (
    CPU_MASK,
    RSEQ_CPU_ID,
    RSEQ_CS,
    emit_cpu,
    emit_or_tid,
    skip_unwanted,
)
from fentry.x86.asm import Asm
from fentry.x86.operands import dword, qword
from fentry.x86.registers import eax, ecx, edx, fs, rax, rcx, rdx, rip, rsi

_LARGEST_IMMEDIATE = 1 << 31


def has_sections(traits: Traits) -> bool:
    """Whether positions can be taken in an rseq section. Without RDPID a vfork child that was
    moved to another CPU cannot be told from its parent."""
    return traits.rseq_offset is not None and traits.rdpid


def emit_record(
    a: Asm, body: RecordBody, traits: Traits, i: int, aborts: list[tuple[str, int]]
) -> Callable[[Asm], None]:
    """The straight part of a record; returns its rare part.  Clobbers rax, rcx, rdx, and rsi where
    it has a time."""
    # COST  40 instructions, 35 without a time, none locked: an rseq section takes the position, and
    # its commit is one instruction, because a vfork child runs it unprotected with its parent's
    # rseq area.
    restart, stray, retry, full, done, no_tls, lines = (
        f"{name}{i}"
        for name in ("restart", "stray", "retry", "full", "recorded", "no_tls", "lines")
    )
    if body.threads:
        skip_unwanted(a, body.threads, traits, done)
    is_locked = not body.stray
    has_section = not is_locked and has_sections(traits)
    # fmt: off
    if has_section:
        area, number = traits.rseq_offset or 0, len(aborts)
        a.label(restart)
        a.lea(rcx, qword[rip(f"section{number}")])
        a.mov(qword[fs, area + RSEQ_CS], rcx)
        a.label(f"begin{number}")
        _read_clock(a, body)                            # in the section: time follows position
        a.mov(ecx, dword[fs, area + RSEQ_CPU_ID])
        a.rdpid(rax)
        if not traits.one_node:
            a.and_(eax, CPU_MASK)                       # without the number of the node
        a.cmp(eax, ecx)
        a.jne(stray)                                    # not registered, or a vfork child
        _add_part(a, body, lines)
        a.mov(rax, body.room)
        a.mov(rax, qword[rax])                          # 0 in a forked child
        a.add(rax, qword[rcx + (body.tail + ring.TAIL_OFFSET)])
        a.cmp(rax, qword[rcx + ring.HEAD_OFFSET])
        a.jbe(full)
        a.mov(edx, 1)
        a.xadd(qword[rcx + ring.HEAD_OFFSET], rdx)      # commit; rdx = position
        a.label(f"end{number}")
        aborts.append((restart, a.depth or 0))
    elif is_locked:
        emit_cpu(a, traits, rcx, ecx)
        _add_part(a, body, lines)
        _take_locked(a, body, retry, full)
    else:
        a.mov(rcx, body.stray)
        _take_locked(a, body, retry, full)
    # fmt: on
    _write(a, body, traits, no_tls, trusts_tid=has_section)
    a.label(done)
    depth = a.depth

    def rare(a: Asm) -> None:
        if has_section:
            a.label(stray, depth=depth)
            a.mov(rcx, body.stray)
            _take_locked(a, body, retry, full)
            _write(a, body, traits, f"stray_{no_tls}", trusts_tid=False)
            a.jmp(done)
        a.label(full, depth=depth)
        a.mov(rax, body.room)
        a.mov(rax, qword[rax])
        a.test(rax, rax)  # 0: a forked child, which stays silent, or tracing is off
        a.je(done)
        a.inc(qword[rcx + ring.DROPPED_OFFSET], lock=True)
        a.jmp(done)
        if has_section or is_locked:
            a.align(8)
            a.label(lines)
            a.quad(body.lines)

    return rare


def _add_part(a: Asm, body: RecordBody, lines: str) -> None:
    # rcx = the line of CPU rcx
    if body.cpu_bytes < _LARGEST_IMMEDIATE:
        a.imul(rcx, rcx, body.cpu_bytes)
    else:
        a.imul(rcx, rcx, body.cpu_bytes // ring.LINE_BYTES)
        a.shl(rcx, 6)
    a.add(rcx, qword[rip(lines)])


def _read_clock(a: Asm, body: RecordBody) -> None:
    # rsi = time, where records have one; changes rax and rdx
    if body.clock == ring.CLOCK_TSC:
        a.rdtsc()
        a.shl(rdx, 32)
        a.lea(rsi, qword[rdx + rax])


def _write(a: Asm, body: RecordBody, traits: Traits, no_tls: str, *, trusts_tid: bool) -> None:
    # The record at position rdx, time rsi, of the part whose line is rcx.  The C library that
    # registered rseq also keeps the tid: it can be trusted to have no more bits.
    # fmt: off
    if body.record_bytes == ring.RECORD24.itemsize:
        a.mov(eax, edx)
        a.and_(eax, body.capacity - 1)
        a.lea(rax, qword[rax + rax * 2])
    else:
        a.lea(rax, qword[rdx + rdx])
        a.and_(eax, 2 * (body.capacity - 1))            # = words before the record
    a.lea(rcx, qword[rcx + rax * 8 + (body.records - body.lines)])
    if body.clock == ring.CLOCK_TSC:
        a.mov(qword[rcx + ring.TIME_OFFSET], rsi)
    elif body.overwrites:
        a.mov(qword[rcx + ring.TIME_OFFSET], rdx)       # shows who comes a lap too late
    a.shr(rdx, body.capacity.bit_length() - 1)
    if not body.overwrites:
        a.mov(eax, a.entry(0, dword))                   # = site key, low half of it
        a.mov(dword[rcx + ring.META_OFFSET], eax)
    a.shl(edx, ring.TID_BITS)                           # = lap
    if body.record_bytes == ring.RECORD24.itemsize:
        a.mov(rax, a.entry(8))
        a.mov(qword[rcx + ring.PARENT_OFFSET], rax)     # = parent_ip
    if trusts_tid and traits.tid_offset is not None:
        a.or_(edx, dword[fs, traits.tid_offset])
    else:
        emit_or_tid(a, traits, edx, rax, eax, no_tls)
    if body.overwrites:                                 # both at once: a late one mixes nothing
        a.mov(eax, a.entry(0, dword))
        a.shl(rdx, 32)
        a.or_(rdx, rax)
        a.mov(qword[rcx + ring.META_OFFSET], rdx)       # commit
    else:
        a.mov(dword[rcx + ring.WORD_OFFSET], edx)       # commit
    # fmt: on


def _take_locked(a: Asm, body: RecordBody, retry: str, full: str) -> None:
    # rdx = the position taken in the part whose line is rcx, rsi = time; right from every CPU.
    # fmt: off
    a.label(retry)
    if body.clock == ring.CLOCK_TSC:
        a.mov(rsi, qword[rcx + ring.HEAD_OFFSET])       # before the clock: time follows position
        a.rdtsc()
        a.shl(rdx, 32)
        a.or_(rdx, rax)
        a.mov(rax, rsi)
        a.mov(rsi, rdx)                                 # = time
    else:
        a.mov(rax, qword[rcx + ring.HEAD_OFFSET])
    a.mov(rdx, body.room)
    a.mov(rdx, qword[rdx])                              # 0 in a forked child
    a.add(rdx, qword[rcx + (body.tail + ring.TAIL_OFFSET)])
    a.cmp(rax, rdx)
    a.jae(full)
    a.lea(rdx, qword[rax + 1])
    a.cmpxchg(qword[rcx + ring.HEAD_OFFSET], rdx, lock=True)
    a.jne(retry)
    a.mov(rdx, rax)
    # fmt: on
