"""The light entry trampoline (ftrace_caller): exactly the bodies of one set, no test of anything
but the thread, in the bodies of ops that filter threads.

A site calls it, directly or through its pad.  Every register and every flag is preserved: gcc's
-fipa-ra lets callers rely on registers that the traced function leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from fentry.region.layout import (
    INDEX_BEFORE_RETURN,
    MAX_TIDS,
    THREAD_BYTES_OFFSET,
    THREADS_WORD_OFFSET,
)
from fentry.ring import layout as ring
from fentry.trampolines.body import RSEQ_SIGNATURE, Body, CallBody, CountBody, RecordBody, Traits
from fentry.x86.asm import Asm
from fentry.x86.code import Code
from fentry.x86.contract import Contract, Section
from fentry.x86.operands import byte, dword, qword, word
from fentry.x86.registers import (
    ah,
    al,
    eax,
    ecx,
    edi,
    edx,
    esi,
    fs,
    rax,
    rcx,
    rdi,
    rdx,
    rip,
    rsi,
)
from fentry.x86.verify import verify

CPUNODE_SELECTOR = 0x7B  # GDT_ENTRY_CPUNODE 15, RPL 3: arch/x86/include/asm/segment.h
CPU_MASK = 0xFFF  # VDSO_CPUNODE_MASK, same file

RSEQ_CPU_ID = 4  # struct rseq, include/uapi/linux/rseq.h
RSEQ_CS = 8

_SAVED = (rax, rcx, rdx, rsi, rdi)
_STACK_BYTES = 48  # five registers and the flags

ORIGIN = 0x10000  # where code is verified, before it is moved to its place

Cold = Callable[[Asm], None]


def build_entry(bodies: Sequence[Body], traits: Traits, origin: int) -> Code:
    """The verified trampoline for `bodies`, in this order, to lie at `origin`.

    ON ENTRY  [rsp] = return address of the site's call     [rsp + 8] = parent_ip
    ON EXIT   every register and flag as on entry
    STACK     48 bytes

    Built and verified once for the same bodies; the bytes hold no distance to anything outside.
    """
    return _built(tuple(bodies), traits).moved(origin)


@lru_cache(maxsize=256)
def _built(bodies: tuple[Body, ...], traits: Traits) -> Code:
    a = Asm()
    cold: list[Cold] = []
    aborts: list[tuple[str, int]] = []
    # fmt: off
    saved = _SAVED if any(isinstance(body, RecordBody) for body in bodies) else _SAVED[:3]
    for register in saved:
        a.push(register)
    a.lahf()                                            # ah = SF ZF AF PF CF
    a.seto(al)                                          # al = OF; nothing here changes DF
    a.push(rax)
    for i, body in enumerate(bodies):
        match body:
            case RecordBody():
                cold.append(emit_record(a, body, traits, i))
            case CountBody():
                cold.append(emit_count(a, body, traits, i, aborts))
            case CallBody():
                raise ValueError("a C function needs all registers: entry_regs.py")
    a.pop(rax)
    a.add(al, 0x7F)                                     # overflows if OF was 1
    a.sahf()
    for register in reversed(saved):
        a.pop(register)
    a.ret()
    # fmt: on
    for emit in cold:
        emit(a)
    emit_sections(a, aborts)
    code = a.assemble(ORIGIN)
    verify(code, Contract(stack_bytes=_STACK_BYTES, sections=named(len(aborts))))
    return code


def named(sections: int) -> tuple[Section, ...]:
    """The rseq sections of the counting bodies, by their labels."""
    return tuple(Section(f"begin{i}", f"end{i}", f"abort{i}") for i in range(sections))


def emit_sections(a: Asm, aborts: Sequence[tuple[str, int]]) -> None:
    """Abort handlers and descriptors, behind all code: (label to go on at, depth) of each."""
    # struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip, 32-byte aligned; the
    # signature stands before the abort handler (include/uapi/linux/rseq.h).
    for i, (restart, depth) in enumerate(aborts):
        a.long(RSEQ_SIGNATURE)
        a.label(f"abort{i}", depth=depth)
        a.jmp(restart)
    for i in range(len(aborts)):
        a.align(32)
        a.label(f"section{i}")
        a.quad(0)
        a.quad(f"begin{i}")
        a.distance(f"begin{i}", f"end{i}")
        a.quad(f"abort{i}")


def section_offset(code: Code) -> int:
    """Where the first rseq section descriptor lies in the code, 0 if it has none."""
    return code.labels["section0"] - code.origin if "section0" in code.labels else 0


def _skip_unwanted(a: Asm, table: int, traits: Traits, done: str) -> None:
    # COST  7 instructions, 3 loads
    if traits.tid_offset is None:
        raise ValueError("threads cannot be told apart in this target")
    # fmt: off
    if traits.rseq_offset is not None:                  # then every thread has a thread pointer
        a.mov(edx, dword[fs, traits.tid_offset])
        a.and_(edx, MAX_TIDS - 1)                       # whatever stands there
    else:
        no_block = f"no_block_{done}"
        _thread_pointer(a, traits)                      # rdx = fs base
        a.test(rdx, rdx)
        a.je(no_block)                                  # tid 0, which nobody lists
        a.mov(edx, dword[rdx + traits.tid_offset])
        a.and_(edx, MAX_TIDS - 1)
        a.label(no_block)
    a.mov(rcx, table + THREAD_BYTES_OFFSET)
    # The word first: a set is complete before it is in force (SDM Vol. 3, 9.2.2).
    a.movzx(eax, word[rcx + (THREADS_WORD_OFFSET - THREAD_BYTES_OFFSET)])
    a.xor(al, byte[rcx + rdx])                          # not the default?
    a.test(al, ah)
    a.je(done)
    # fmt: on


def emit_record(a: Asm, body: RecordBody, traits: Traits, i: int) -> Cold:
    """The straight part of a record; returns its rare part.  Clobbers rax, rcx, rdx, rsi, rdi."""
    # COST  37 instructions, 1 locked; the clock read hides the rest
    retry, full, done, no_tls = (f"{name}{i}" for name in ("retry", "full", "recorded", "no_tls"))
    if body.threads:
        _skip_unwanted(a, body.threads, traits, done)
    # fmt: off
    _cpu(a, traits)                                     # edi = cpu
    a.shl(rdi, 6)                                       # = its line
    a.mov(rsi, body.lines)
    a.add(rsi, rdi)
    a.label(retry)
    a.mov(rcx, qword[rsi + ring.HEAD_OFFSET])
    a.rdtsc()                                           # inside the loop: time follows position
    a.shl(rdx, 32)
    a.or_(rdx, rax)                                     # = time
    a.mov(rax, body.room)
    a.mov(rax, qword[rax])                              # 0 in a forked child
    a.add(rax, qword[rsi + (body.tail + ring.TAIL_OFFSET)])
    a.cmp(rcx, rax)
    a.jae(full)
    a.mov(rax, rcx)
    a.lea(rcx, qword[rax + 1])
    a.cmpxchg(qword[rsi + ring.HEAD_OFFSET], rcx, lock=True)
    a.jne(retry)
    a.imul(rdi, rdi, body.cpu_bytes // ring.LINE_BYTES)  # = cpu * cpu_bytes
    a.mov(ecx, eax)
    a.and_(ecx, body.capacity - 1)
    if body.record_bytes == ring.RECORD24.itemsize:
        a.lea(rcx, qword[rcx + rcx * 2])
        a.shl(rcx, 3)
    else:
        a.shl(rcx, 4)
    a.add(rcx, rdi)
    a.mov(rdi, body.records)
    a.add(rcx, rdi)                                     # = the record
    a.mov(qword[rcx + ring.TIME_OFFSET], rdx)
    a.shr(rax, body.capacity.bit_length() - 1)
    a.shl(eax, ring.TID_BITS)                           # = lap
    if traits.tid_offset is not None:
        _thread_pointer(a, traits)                      # rdx = fs base
        a.test(rdx, rdx)
        a.je(no_tls)
        a.mov(edx, dword[rdx + traits.tid_offset])
        a.and_(edx, ring.TID_MASK)
        a.or_(eax, edx)
        a.label(no_tls)
    a.shl(rax, 32)
    a.mov(esi, a.entry(0, dword))  # = site key, low half of it
    a.or_(rax, rsi)
    if body.record_bytes == ring.RECORD24.itemsize:
        a.mov(rsi, a.entry(8))
        a.mov(qword[rcx + ring.PARENT_OFFSET], rsi)     # = parent_ip
    a.mov(qword[rcx + ring.META_OFFSET], rax)           # commit
    a.label(done)
    # fmt: on

    def buffer_full(a: Asm) -> None:
        a.label(full)
        a.mov(rax, body.room)
        a.mov(rax, qword[rax])
        a.test(rax, rax)  # 0: a forked child, which stays silent, or tracing is off
        a.je(done)
        a.inc(qword[rsi + ring.DROPPED_OFFSET], lock=True)
        a.jmp(done)

    return buffer_full


def emit_count(
    a: Asm, body: CountBody, traits: Traits, i: int, aborts: list[tuple[str, int]]
) -> Cold:
    """The straight part of a count; returns its rare part.  Clobbers rax, rcx, rdx."""
    # COST  15 instructions, none locked: an rseq section makes it exact, and its commit is one
    # instruction, because a vfork child runs it unprotected with its parent's rseq area.
    restart, slow, done = (f"{name}{i}" for name in ("restart", "slow", "counted"))
    counter = rcx + rax * 8 + body.displacement
    depth = a.depth
    if body.threads:
        _skip_unwanted(a, body.threads, traits, done)
    # fmt: off
    a.mov(rax, a.entry(0))
    a.mov(eax, dword[rax - INDEX_BEFORE_RETURN])        # = index of the site
    if traits.rseq_offset is None:
        a.jmp(slow)
    else:
        area, number = traits.rseq_offset, len(aborts)
        a.label(restart)
        a.lea(rcx, qword[rip(f"section{number}")])
        a.mov(qword[fs, area + RSEQ_CS], rcx)           # rdfsbase would cost 5 ns here
        a.label(f"begin{number}")
        a.movsxd(rcx, dword[fs, area + RSEQ_CPU_ID])    # < 0: not registered
        if traits.rdpid:
            a.rdpid(rdx)
            a.and_(edx, CPU_MASK)
            a.cmp(edx, ecx)
            a.jne(slow)                                 # a vfork child on another CPU
        a.mov(rdx, body.bases)
        a.mov(rcx, qword[rdx + rcx * 8])
        a.test(rcx, rcx)
        a.je(slow)                                      # a forked child, or not registered
        a.inc(qword[counter])                           # commit
        a.label(f"end{number}")
        aborts.append((restart, a.depth or 0))
    a.label(done, depth=depth)
    # fmt: on

    def not_registered(a: Asm) -> None:
        a.label(slow)
        a.mov(rcx, body.control)
        a.mov(rcx, qword[rcx])
        a.test(rcx, rcx)
        a.je(done)
        a.mov(rcx, body.shared)
        a.inc(qword[counter], lock=True)
        a.jmp(done)

    return not_registered


def _cpu(a: Asm, traits: Traits) -> None:
    if traits.rdpid:
        a.rdpid(rdi)
    else:
        a.mov(edi, CPUNODE_SELECTOR)
        a.lsl(edi, edi)
    a.and_(edi, CPU_MASK)


def _thread_pointer(a: Asm, traits: Traits) -> None:
    # psABI 6.4.2 (TLS variant II): the word at fs:0 holds the address of itself.
    if traits.fsgsbase:
        a.rdfsbase(rdx)
    else:
        a.mov(rdx, qword[fs, 0])
