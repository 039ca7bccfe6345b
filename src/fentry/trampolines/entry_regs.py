"""The trampoline with all registers (ftrace_regs_caller): calls C functions, and any other body.

Everything is saved once, bodies run in their order, everything is restored.  Each C function gets a
struct ftrace_regs of its own, filled anew, so that only one that redirects changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fentry.region.layout import (
    GUARD_BUCKETS,
    GUARD_SLOTS,
    INDEX_BEFORE_RETURN,
    STEP_BEFORE_RETURN,
)
from fentry.trampolines.body import Body, CallBody, CountBody, DirectBody, RecordBody, Traits
from fentry.trampolines.caller import skip_unwanted
from fentry.trampolines.entry import (
    ORIGIN,
    Cold,
    cells_of,
    emit_count,
    emit_end,
    emit_sections,
    emit_target,
    named,
)
from fentry.trampolines.record import emit_record
from fentry.x86.asm import Asm
from fentry.x86.calls import Vectors
from fentry.x86.code import Code
from fentry.x86.contract import CallEffect, Contract
from fentry.x86.operands import Memory, dword, ptr, qword, xmmword
from fentry.x86.registers import (
    XMM,
    Register,
    eax,
    ecx,
    edx,
    fs,
    r8,
    r9,
    r10,
    r11,
    r12,
    r13,
    r14,
    r15,
    rax,
    rbp,
    rbx,
    rcx,
    rdi,
    rdx,
    rsi,
    rsp,
)
from fentry.x86.verify import verify

# In the order in which they are pushed, behind the flags.
_SAVED = (rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15)
_SAVED_BYTES = 8 * (1 + len(_SAVED))


@dataclass(frozen=True, slots=True)
class Saved:
    """What is saved where when C functions are called: `places` of the registers at the entry of
    the trampoline, offsets from rsp there; rbp lies `bytes` below it from then on.

    `flags` emits code that loads the flags at the entry into rax; it may change rcx.
    """

    places: Mapping[Register, int]
    bytes: int
    flags: Callable[[Asm], None]


def _flags(a: Asm) -> None:
    a.mov(rax, a.entry(-8))


# The frame of this trampoline.
_FRAME = Saved({one: -8 * (2 + i) for i, one in enumerate(_SAVED)}, _SAVED_BYTES, _flags)

# struct ftrace_regs of ftrace.h, in words: the kernel's struct pt_regs
# (arch/x86/include/asm/ptrace.h) and a pointer.
_ORDER = (r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi)
_ORIG_AX, _IP, _CS, _FLAGS, _SP, _SS, _XSTATE = range(len(_ORDER), len(_ORDER) + 7)
_USER_CS, _USER_SS = 0x33, 0x2B  # arch/x86/include/asm/segment.h

# Behind it, in words of the frame: the ip of the function, the slot in the table of active calls.
_FUNCTION, _SLOT = _XSTATE + 1, _XSTATE + 2
_FRAME_BYTES = 8 * (_SLOT + 1)

_CALL_BYTES = 16 + 8  # alignment and return address
# An XSAVE area: SDM Vol. 1, 13.4.1 and 13.4.2.
_MXCSR_OFFSET, _XMM_OFFSET, _HEADER_OFFSET, _HEADER_WORDS = 24, 160, 512, 8
_XMM_STATE, _FXSAVE_STATE = 2, 3  # XSTATE_BV of SSE, and of x87 and SSE
_LEAST_XSTATE_BYTES = 576
_XSTATE_ALIGNMENT = 64
_MXCSR = 0x1F80  # at the start of every process: System V ABI 3.2.1

_NESTED_CALLS = 2  # of one thread: normal, and one that interrupts it
_SLOT_BYTES = 16
_BUCKET_BYTES = GUARD_SLOTS * _SLOT_BYTES
_SPREAD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: Knuth, vol. 3, 6.4


def build_entry_regs(bodies: Sequence[Body], traits: Traits, origin: int) -> Code:
    """The verified trampoline for `bodies`, in this order, to lie at `origin`.

    ON ENTRY  [rsp] = return address of the pad's call     [rsp + 8] = parent_ip
    ON EXIT   all as on entry; where the last body redirects and changed regs->ip: rip = regs->ip,
              registers as in its regs; a DirectBody has been jumped to
    STACK     stack_bytes(), and what the C functions use
    """
    return _built(tuple(bodies), traits).moved(origin)


def stack_bytes(bodies: Sequence[Body], traits: Traits) -> int:
    """Bytes below rsp at the entry that the trampoline itself uses."""
    return _SAVED_BYTES + frame_bytes(_vectors(bodies), traits)


def frame_bytes(vectors: Vectors, traits: Traits) -> int:
    """Bytes below what is saved: vectors, regs, and the call of a C function."""
    return _area_bytes(vectors, traits) + _FRAME_BYTES + _CALL_BYTES


@lru_cache(maxsize=256)
def _built(bodies: tuple[Body, ...], traits: Traits) -> Code:
    a = Asm()
    cold: list[Cold] = []
    aborts: list[tuple[str, int]] = []
    vectors = _vectors(bodies)
    # fmt: off
    a.pushfq()
    a.cld()                                             # ABI 3.2.1: what C expects
    for register in _SAVED:
        a.push(register)
    a.mov(rbp, rsp)
    make_frame(a, vectors, traits, _FRAME)
    find_function(a, next(body for body in bodies if isinstance(body, CallBody)))
    for i, body in enumerate(bodies):
        match body:
            case RecordBody():
                cold.append(emit_record(a, body, traits, i, aborts))
            case CountBody():
                cold.append(emit_count(a, body, traits, i, aborts))
            case CallBody():
                cold.append(emit_call(a, body, traits, i, _FRAME, has_xstate=bool(vectors)))
            case DirectBody():
                pass
    leave_frame(a, vectors, traits, _FRAME)
    for register in reversed(_SAVED):
        a.pop(register)
    a.popfq()
    emit_end(a, bodies)
    # fmt: on
    for emit in cold:
        emit(a)
    emit_sections(a, aborts)
    emit_target(a, bodies)
    code = a.assemble(ORIGIN)
    verify(code, contract_of(bodies, traits, sections=len(aborts), cells=cells_of(code)))
    return code


def contract_of(
    bodies: Sequence[Body], traits: Traits, *, sections: int, cells: Mapping[int, int] | None = None
) -> Contract:
    """What the trampoline for `bodies` promises; of vectors it is not proved that they are as at
    entry: the tests show that."""
    redirects = any(isinstance(body, CallBody) and body.redirects for body in bodies)
    return Contract(
        stack_bytes=stack_bytes(bodies, traits),
        returns=not cells,
        cells=cells or {},
        slots=((0, 8),) if redirects else (),
        redirects=redirects,
        calls={None: CallEffect()},
        vector_state=_vectors(bodies) is not Vectors.NONE,
        xsave_bytes=traits.xstate_bytes,
        sections=named(sections),
    )


def _vectors(bodies: Sequence[Body]) -> Vectors:
    return max(body.vectors for body in bodies if isinstance(body, CallBody))


def _xstate_bytes(vectors: Vectors, traits: Traits) -> int:
    return traits.xstate_bytes if vectors is Vectors.ALL else _LEAST_XSTATE_BYTES


def _area_bytes(vectors: Vectors, traits: Traits) -> int:
    return _xstate_bytes(vectors, traits) + _XSTATE_ALIGNMENT if vectors else 0


def make_frame(a: Asm, vectors: Vectors, traits: Traits, saved: Saved) -> None:
    """Room for regs below rbp, where rsp is, behind vectors if these are to be saved."""
    if vectors:
        _save_vectors(a, vectors, traits, saved)
    else:
        a.sub(rsp, _FRAME_BYTES)


def leave_frame(a: Asm, vectors: Vectors, traits: Traits, saved: Saved) -> None:
    """Vectors as they were, and rsp at what is saved."""
    if vectors:
        _restore_vectors(a, vectors, traits)
    a.mov(rsp, rbp)
    a.depth = saved.bytes


def _save_vectors(a: Asm, vectors: Vectors, traits: Traits, saved: Saved) -> None:
    # r12 = the area, laid out as by XSAVE.  MXCSR and x87 are as C expects them from here on: a
    # program may have unmasked floating-point exceptions.
    depth = saved.bytes + _area_bytes(vectors, traits) + _FRAME_BYTES
    # fmt: off
    a.and_(rsp, -_XSTATE_ALIGNMENT)
    a.sub(rsp, _xstate_bytes(vectors, traits))
    a.mov(r12, rsp)
    if vectors is Vectors.XMM:
        for n, register in enumerate(XMM[:16]):
            a.movups(xmmword[rsp + (_XMM_OFFSET + 16 * n)], register)
        a.stmxcsr(dword[rsp + _MXCSR_OFFSET])
        a.mov(qword[rsp + _HEADER_OFFSET], _XMM_STATE)
    else:
        _save_all(a, traits)
    a.lea(rsp, ptr[rbp - (depth - saved.bytes)])
    a.depth = depth
    a.mov(dword[rsp], _MXCSR)
    a.ldmxcsr(dword[rsp])
    # fmt: on


def _save_all(a: Asm, traits: Traits) -> None:
    # fmt: off
    if traits.xstate_mask:
        a.xor(edx, edx)
        for word in range(_HEADER_WORDS):               # XRSTOR wants zeros there
            a.mov(qword[rsp + (_HEADER_OFFSET + 8 * word)], rdx)
        a.mov(eax, traits.xstate_mask)
        (a.xsavec64 if traits.xsavec else a.xsave64)(ptr[rsp])
    else:
        a.fxsave64(ptr[rsp])
        a.mov(qword[rsp + _HEADER_OFFSET], _FXSAVE_STATE)
    a.fninit()
    if traits.xstate_mask & 4:
        a.vzeroupper()                                  # no penalty for code without AVX
    # fmt: on


def _restore_vectors(a: Asm, vectors: Vectors, traits: Traits) -> None:
    # fmt: off
    if vectors is Vectors.XMM:
        for n, register in enumerate(XMM[:16]):
            a.movups(register, xmmword[r12 + (_XMM_OFFSET + 16 * n)])
        a.ldmxcsr(dword[r12 + _MXCSR_OFFSET])
    elif traits.xstate_mask:
        a.mov(eax, traits.xstate_mask)
        a.xor(edx, edx)
        a.xrstor64(ptr[r12])
    else:
        a.fxrstor64(ptr[r12])
    # fmt: on


def find_function(a: Asm, body: CallBody) -> None:
    """Keep the ip of the traced function in the frame.  Clobbers rax, rcx."""
    # The pad knows the index of its site, the registry's row of it the ip.
    # fmt: off
    a.mov(rax, a.entry(0))
    a.mov(eax, dword[rax - INDEX_BEFORE_RETURN])
    a.imul(rax, rax, body.stride)
    a.mov(rcx, body.ips)
    a.mov(rax, qword[rcx + rax])
    a.mov(_word(_FUNCTION), rax)
    # fmt: on


def _word(n: int) -> Memory:
    # A word of the frame.
    return qword[rsp + 8 * n]


def emit_call(
    a: Asm, body: CallBody, traits: Traits, i: int, saved: Saved, *, has_xstate: bool
) -> Cold:
    """The straight part of a call of a C function; returns its rare part.  Of registers only rsp,
    rbp and r12 are as before."""
    # COST  79 instructions, 2 locked; the guard 50 more, 1 locked; a thread filter 7 more
    depth = a.depth
    assert depth is not None
    done = f"called{i}"
    cold: Cold = _nothing
    if body.threads:
        skip_unwanted(a, body.threads, traits, done)
    if body.guard:
        cold = _enter_guard(a, body, traits, i, done)
    # fmt: off
    a.mov(rax, body.in_flight)
    a.inc(qword[rax], lock=True)
    _fill_regs(a, saved, has_xstate=has_xstate)
    a.mov(rdi, _word(_FUNCTION))                        # = ip
    a.mov(rsi, a.entry(8))                              # = parent_ip
    a.mov(rdx, body.ops)
    a.mov(rcx, rsp)                                     # = regs
    a.mov(rax, body.function)
    a.and_(rsp, -16)
    a.call(rax)
    a.lea(rsp, ptr[rbp - (depth - saved.bytes)])
    a.depth = depth
    a.mov(rax, body.in_flight)
    a.dec(qword[rax], lock=True)
    if body.guard:
        _leave_guard(a, i)
    if body.redirects:
        _take_changes(a, saved, i)
    a.label(done)
    # fmt: on
    return cold


def _nothing(a: Asm) -> None:
    pass


def _fill_regs(a: Asm, saved: Saved, *, has_xstate: bool) -> None:
    # fmt: off
    for n, register in enumerate(_ORDER):
        a.mov(rax, a.entry(saved.places[register]))
        a.mov(_word(n), rax)
    a.mov(_word(_ORIG_AX), -1)
    a.mov(rax, _word(_FUNCTION))
    a.mov(_word(_IP), rax)
    a.mov(_word(_CS), _USER_CS)
    saved.flags(a)
    a.mov(_word(_FLAGS), rax)
    a.mov(rax, a.entry(0))
    a.mov(ecx, dword[rax - STEP_BEFORE_RETURN])         # the pad of a part has stepped down
    a.lea(rax, a.entry(8))
    a.add(rax, rcx)                                     # = rsp of the function
    a.mov(_word(_SP), rax)
    a.mov(_word(_SS), _USER_SS)
    if has_xstate:
        a.mov(_word(_XSTATE), r12)
    else:
        a.mov(_word(_XSTATE), 0)
    # fmt: on


def _take_changes(a: Asm, saved: Saved, i: int) -> None:
    # What is popped is what the function left in its regs; ret goes where it wants.
    unchanged = f"unchanged{i}"
    # fmt: off
    for n, register in enumerate(_ORDER):
        a.mov(rax, _word(n))
        a.mov(a.entry(saved.places[register]), rax)
    a.mov(rax, _word(_IP))
    a.cmp(rax, _word(_FUNCTION))
    a.je(unchanged)
    a.mov(a.entry(0), rax)
    a.label(unchanged)
    # fmt: on


def _enter_guard(a: Asm, body: CallBody, traits: Traits, i: int, done: str) -> Cold:
    # A call that runs has a slot {fs base, rsp} in a bucket of the table.  Older calls of this
    # thread lie above it on the stack; a slot of its own at or below it was left by a jump.
    names = ("scan", "look", "empty", "live", "next", "full", "taken")
    scan, look, empty, live, following, skipped, taken = (f"guard_{name}{i}" for name in names)
    shift = (GUARD_BUCKETS - 1).bit_length()
    # fmt: off
    if traits.fsgsbase:
        a.rdfsbase(rdi)                                 # = the thread
        a.test(rdi, rdi)
        a.je(skipped)                                   # nothing tells it from others
    else:
        a.mov(rdi, qword[fs, 0])                        # psABI 6.4.2
    a.mov(rsi, _SPREAD)
    a.imul(rsi, rdi)
    a.shr(rsi, 64 - shift)
    a.imul(rsi, rsi, _BUCKET_BYTES)
    a.mov(rax, body.guard)
    a.add(rsi, rax)                                     # = its bucket
    a.label(scan)
    a.xor(r9, r9)                                       # = calls that run already
    a.xor(r8, r8)                                       # = a slot that is free
    a.lea(rdx, ptr[rsi + (_BUCKET_BYTES - _SLOT_BYTES)])
    a.label(look)
    a.mov(rax, qword[rdx])
    a.test(rax, rax)
    a.je(empty)
    a.cmp(rax, rdi)
    a.jne(following)
    a.cmp(qword[rdx + 8], rbp)
    a.ja(live)
    a.mov(qword[rdx + 8], 0)
    a.mov(qword[rdx], 0)
    a.label(empty)
    a.mov(r8, rdx)
    a.jmp(following)
    a.label(live)
    a.inc(r9)
    a.label(following)
    a.sub(rdx, _SLOT_BYTES)
    a.cmp(rdx, rsi)
    a.jae(look)
    a.cmp(r9, _NESTED_CALLS)
    a.jae(skipped)
    a.test(r8, r8)
    a.je(skipped)                                       # the bucket is full
    a.xor(eax, eax)
    a.mov(rdx, qword[r8 + 8])                           # it is cleared by two stores
    a.mov(rbx, rdi)
    a.mov(rcx, rbp)
    a.cmpxchg16b(ptr[r8], lock=True)
    a.jne(scan)                                         # another thread took it
    a.label(taken)
    a.mov(_word(_SLOT), r8)
    # fmt: on

    def dropped(a: Asm) -> None:
        a.label(skipped)
        a.mov(rax, body.dropped)
        a.inc(qword[rax], lock=True)
        a.jmp(done)

    return dropped


def _leave_guard(a: Asm, i: int) -> None:
    # Only if it is ours still: a handler on another stack may have taken it for one left behind.
    gone = f"guard_gone{i}"
    # fmt: off
    a.mov(rdx, _word(_SLOT))
    a.cmp(qword[rdx + 8], rbp)
    a.jne(gone)
    a.mov(qword[rdx + 8], 0)
    a.mov(qword[rdx], 0)
    a.label(gone)
    # fmt: on
