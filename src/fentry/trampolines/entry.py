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
from fentry.trampolines.body import (
    RSEQ_SIGNATURE,
    Body,
    CallBody,
    CountBody,
    DirectBody,
    RecordBody,
    Traits,
)
from fentry.trampolines.caller import (
    CPU_MASK,
    RSEQ_CPU_ID,
    RSEQ_CS,
    emit_cpu,
    emit_or_tid,
    emit_thread_pointer,
)
from fentry.trampolines.counter import emit_counter_record, emit_part
from fentry.x86.asm import Asm
from fentry.x86.code import Code
from fentry.x86.contract import Contract, Section
from fentry.x86.operands import byte, dword, qword, word
from fentry.x86.registers import (
    ah,
    al,
    eax,
    ecx,
    edx,
    fs,
    rax,
    rcx,
    rdx,
    rip,
    rsi,
)
from fentry.x86.verify import verify

_SAVED = (rax, rcx, rdx, rsi)
_STACK_BYTES = 40  # four registers and the flags

ORIGIN = 0x10000  # where code is verified, before it is moved to its place

Cold = Callable[[Asm], None]


def build_entry(bodies: Sequence[Body], traits: Traits, origin: int) -> Code:
    """The verified trampoline for `bodies`, in this order, to lie at `origin`.

    ON ENTRY  [rsp] = return address of the site's call     [rsp + 8] = parent_ip
    ON EXIT   every register and flag as on entry; a DirectBody has been jumped to
    STACK     40 bytes

    Built and verified once for the same bodies; the bytes hold no distance to anything outside.
    """
    return _built(tuple(bodies), traits).moved(origin)


@lru_cache(maxsize=256)
def _built(bodies: tuple[Body, ...], traits: Traits) -> Code:
    a = Asm()
    cold: list[Cold] = []
    aborts: list[tuple[str, int]] = []
    if len(bodies) == 1 and isinstance(bodies[0], DirectBody):
        emit_end(a, bodies)  # out of reach of the site
        emit_target(a, bodies)
        code = a.assemble(ORIGIN)
        verify(code, Contract(returns=False, cells=cells_of(code)))
        return code
    # fmt: off
    saved = _SAVED[: max(map(_nr_saved, bodies), default=0)]
    for register in saved:
        a.push(register)
    a.lahf()                                            # ah = SF ZF AF PF CF
    a.seto(al)                                          # al = OF; nothing here changes DF
    a.push(rax)
    for i, body in enumerate(bodies):
        match body:
            case RecordBody():
                cold.append(emit_record(a, body, traits, i, aborts))
            case CountBody():
                cold.append(emit_count(a, body, traits, i, aborts))
            case CallBody():
                raise ValueError("a C function needs all registers: entry_regs.py")
            case DirectBody():
                pass
    a.pop(rax)
    a.add(al, 0x7F)                                     # overflows if OF was 1
    a.sahf()
    for register in reversed(saved):
        a.pop(register)
    emit_end(a, bodies)
    # fmt: on
    for emit in cold:
        emit(a)
    emit_sections(a, aborts)
    emit_target(a, bodies)
    code = a.assemble(ORIGIN)
    cells = cells_of(code)
    sections = named(len(aborts))
    verify(code, Contract(_STACK_BYTES, returns=not cells, cells=cells, sections=sections))
    return code


def emit_end(a: Asm, bodies: Sequence[Body]) -> None:
    """Return, or go on in the direct trampoline that is the last of the bodies."""
    if isinstance(bodies[-1], DirectBody):
        a.jmp(qword[rip("direct")])
    else:
        a.ret()


def emit_target(a: Asm, bodies: Sequence[Body]) -> None:
    """Behind all code: where a direct trampoline lies, at any distance."""
    for body in bodies:
        if isinstance(body, DirectBody):
            a.align(8)
            a.label("direct", depth=0)
            a.quad(body.target)


def cells_of(code: Code) -> dict[int, int]:
    """What the code jumps through, for its contract."""
    return {code.labels["direct"]: 0} if "direct" in code.labels else {}


def _nr_saved(body: Body) -> int:
    # How many of _SAVED it uses.
    if isinstance(body, RecordBody):
        return 4 if body.clock == ring.CLOCK_TSC else 3
    return 3 if isinstance(body, CountBody) and body.threads else 2


def named(sections: int) -> tuple[Section, ...]:
    """The rseq sections of bodies that count, by their labels."""
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


def skip_unwanted(a: Asm, table: int, traits: Traits, done: str) -> None:
    """Go to `done` unless `table` wants the thread.  Clobbers rax, rcx, rdx and the flags."""
    # COST  7 instructions, 3 loads
    if traits.tid_offset is None:
        raise ValueError("threads cannot be told apart in this target")
    # fmt: off
    if traits.rseq_offset is not None:                  # then every thread has a thread pointer
        a.mov(edx, dword[fs, traits.tid_offset])
        a.and_(edx, MAX_TIDS - 1)                       # whatever stands there
    else:
        no_block = f"no_block_{done}"
        emit_thread_pointer(a, traits)                      # rdx = fs base
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


def emit_record(
    a: Asm, body: RecordBody, traits: Traits, i: int, aborts: list[tuple[str, int]]
) -> Cold:
    """The straight part of a record; returns its rare part.  Clobbers rax, rcx, rdx, rsi."""
    # COST  33 instructions, 1 locked; the clock read hides the rest
    retry, full, done, no_tls = (f"{name}{i}" for name in ("retry", "full", "recorded", "no_tls"))
    if body.threads:
        skip_unwanted(a, body.threads, traits, done)
    if body.clock != ring.CLOCK_TSC:
        return emit_counter_record(a, body, traits, i, aborts)
    record = rsi + rcx * 8 + (body.records - body.lines)
    # fmt: off
    emit_cpu(a, traits, rcx, ecx)
    a.mov(rsi, body.lines)
    emit_part(a, body)
    a.add(rsi, rcx)                                     # = the CPU's line
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
    a.mov(ecx, eax)
    a.and_(ecx, body.capacity - 1)
    if body.record_bytes == ring.RECORD24.itemsize:
        a.lea(rcx, qword[rcx + rcx * 2])
    else:
        a.add(rcx, rcx)                                 # = words before the record
    a.mov(qword[record + ring.TIME_OFFSET], rdx)
    a.shr(rax, body.capacity.bit_length() - 1)
    if body.record_bytes == ring.RECORD24.itemsize:
        a.mov(rdx, a.entry(8))
        a.mov(qword[record + ring.PARENT_OFFSET], rdx)  # = parent_ip
    a.shl(eax, ring.TID_BITS)                           # = lap
    emit_or_tid(a, traits, eax, rdx, edx, no_tls)
    a.mov(edx, a.entry(0, dword))                       # = site key, low half of it
    a.shl(rax, 32)
    a.or_(rax, rdx)
    a.mov(qword[record + ring.META_OFFSET], rax)        # commit
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
    """The straight part of a count; returns its rare part.  Clobbers rax, rcx, and rdx where it
    filters threads."""
    # COST  14 instructions, none locked: an rseq section makes it exact, and its commit is one
    # instruction, because a vfork child runs it unprotected with its parent's rseq area.
    restart, slow, done = (f"{name}{i}" for name in ("restart", "slow", "counted"))
    counter = rcx + rax * 8 + body.displacement
    depth = a.depth
    if body.threads:
        skip_unwanted(a, body.threads, traits, done)
    # fmt: off
    if traits.rseq_offset is None:
        a.jmp(slow)
    else:
        area, number = traits.rseq_offset, len(aborts)
        a.label(restart)
        a.lea(rcx, qword[rip(f"section{number}")])
        a.mov(qword[fs, area + RSEQ_CS], rcx)           # rdfsbase would cost 5 ns here
        a.label(f"begin{number}")
        a.movsxd(rax, dword[fs, area + RSEQ_CPU_ID])    # < 0: not registered
        if traits.rdpid:
            a.rdpid(rcx)
            if not traits.one_node:
                a.and_(ecx, CPU_MASK)                   # without the number of the node
            a.cmp(eax, ecx)
            a.jne(slow)                                 # a vfork child on another CPU
        a.mov(rcx, body.bases)
        a.mov(rcx, qword[rcx + rax * 8])
        a.test(rcx, rcx)
        a.je(slow)                                      # a forked child, or not registered
        _index(a)
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
        _index(a)
        a.inc(qword[counter], lock=True)
        a.jmp(done)

    return not_registered


def _index(a: Asm) -> None:
    # rax = index of the site
    a.mov(rax, a.entry(0))
    a.mov(eax, dword[rax - INDEX_BEFORE_RETURN])
