"""The light entry trampoline (ftrace_caller): exactly the bodies of one set, no test of anything
but the thread, in the bodies of ops that filter threads.

A site calls it, directly or through its pad.  Every register and every flag is preserved: gcc's
-fipa-ra lets callers rely on registers that the traced function leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from fentry.region.layout import INDEX_BEFORE_RETURN
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
from fentry.trampolines.caller import CPU_MASK, RSEQ_CPU_ID, RSEQ_CS, skip_unwanted
from fentry.trampolines.record import emit_record
from fentry.x86.asm import Asm
from fentry.x86.code import Code
from fentry.x86.contract import Contract, Section
from fentry.x86.operands import dword, qword
from fentry.x86.registers import al, eax, ecx, fs, rax, rcx, rdx, rip, rsi
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
