"""The list trampoline (ftrace_ops_list_func): all ops in order, each asked whether it wants the
function, and its body called if so.

A trampoline for each arena, whatever ops there are: it walks a table in memory, which names for
each ops a bitmap over the sites and the code of its body.  Bodies are pieces of their own, for
all arenas.  docs/design/list.md has the reasons.
"""

from __future__ import annotations

from functools import lru_cache

from fentry.region.layout import INDEX_BEFORE_RETURN, LIST_DTYPE
from fentry.trampolines.body import Body, CallBody, CountBody, DirectBody, RecordBody, Traits
from fentry.trampolines.entry import ORIGIN, emit_count, emit_sections, named
from fentry.trampolines.entry_regs import (
    Saved,
    emit_call,
    find_function,
    frame_bytes,
    leave_frame,
    make_frame,
)
from fentry.trampolines.record import emit_record
from fentry.x86.asm import Asm
from fentry.x86.calls import Vectors
from fentry.x86.code import Code
from fentry.x86.contract import CallEffect, Contract
from fentry.x86.operands import byte, dword, qword
from fentry.x86.registers import (
    al,
    eax,
    ecx,
    edx,
    r8,
    r9,
    r9d,
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
    rip,
    rsi,
    rsp,
)
from fentry.x86.verify import verify

# What bodies change; r8 and r9 are the place in the table and the index of the site.
_CLOBBERS = (rax, rcx, rdx, rsi, rdi)
_SAVED = (*_CLOBBERS, r8, r9)
_BODY_DEPTH = 8 * len(_SAVED) + 16  # the flags, and the return address of the body's call
_SAVED_FLAGS = -8 * (len(_SAVED) + 1)  # from rsp at entry: ah = SF ZF AF PF CF, al = OF
_LOW_FLAGS, _OVERFLOW = 0x8D5, 11  # SF ZF AF PF CF OF; the bit of OF: SDM Vol. 1, 3.4.3

# What a body that calls a C function saves beside, behind the flags (of which DF is the function's
# still): r8 and r9 as the list has them.
_CALL_SAVED = (rbx, rbp, r10, r11, r12, r13, r14, r15, r8, r9)

_FIELDS = LIST_DTYPE.fields
assert _FIELDS is not None
BITMAP_OFFSET, BODY_OFFSET = _FIELDS["bitmap"][1], _FIELDS["body"][1]
ENTRY_BYTES = LIST_DTYPE.itemsize


def build_list(origin: int) -> Code:
    """The verified list trampoline; label `cell` is a qword, aligned to 8: the table's address.

    ON ENTRY  [rsp] = return address of the site's pad      [rsp + 8] = parent_ip
    ON EXIT   every register and flag as on entry
    STACK     72 bytes, and the bodies none
    COST      27 instructions, 11 for each ops of the table, 13 and its body where it wants the site
    """
    return _built().moved(origin)


@lru_cache(maxsize=1)
def _built() -> Code:
    a = Asm()
    # fmt: off
    for register in _SAVED:
        a.push(register)
    a.lahf()                                            # ah = SF ZF AF PF CF
    a.seto(al)                                          # al = OF
    a.push(rax)
    a.mov(rax, a.entry(0))
    a.mov(r9d, dword[rax - INDEX_BEFORE_RETURN])        # = index of the site
    a.mov(r8, qword[rip("cell")])                       # one table for the whole call
    a.label("next")
    a.mov(rcx, qword[r8 + BODY_OFFSET])
    a.test(rcx, rcx)
    a.je("end_of_table")
    a.mov(rax, qword[r8 + BITMAP_OFFSET])
    a.mov(edx, r9d)
    a.shr(edx, 5)
    a.mov(edx, dword[rax + rdx * 4])
    a.bt(edx, r9d)                                      # modulo 32
    a.jae("unwanted")
    a.call(rcx)
    a.label("unwanted")
    a.add(r8, ENTRY_BYTES)
    a.jmp("next")
    a.label("end_of_table")
    a.pop(rax)
    a.add(al, 0x7F)                                     # overflows if OF was 1
    a.sahf()
    for register in reversed(_SAVED):
        a.pop(register)
    a.ret()
    # fmt: on
    a.align(8)
    a.label("cell", depth=0)
    a.quad(0)
    code = a.assemble(ORIGIN)
    body = CallEffect(clobbers=_CLOBBERS, aligned=False)
    verify(code, Contract(stack_bytes=_BODY_DEPTH, calls={None: body}))
    return code


def cell_offset(code: Code) -> int:
    """Where the address of the table lies in the code of a list trampoline."""
    return code.labels["cell"] - code.origin


@lru_cache(maxsize=1024)
def build_list_body(body: Body, traits: Traits) -> Code:
    """The verified code that the list calls for an ops, at ORIGIN: to be moved().

    ON ENTRY  [rsp] = into the list trampoline
    ON EXIT   CLOBBERS rax, rcx, rdx, rsi, rdi and the flags; one that redirects has changed what
              the trampoline restores, and where it returns to
    STACK     none; of one that calls a C function 88 bytes, what entry_regs.frame_bytes() says, and
              what the function uses
    """
    if isinstance(body, CallBody):
        return _build_call(body, traits)
    a = Asm()
    a.depth = _BODY_DEPTH  # so that entry() is that of the trampoline
    aborts: list[tuple[str, int]] = []
    match body:
        case RecordBody():
            cold = emit_record(a, body, traits, 0, aborts)
        case CountBody():
            cold = emit_count(a, body, traits, 0, aborts)
        case DirectBody():
            raise ValueError("a direct trampoline is called, not asked")
    a.ret()
    cold(a)
    emit_sections(a, aborts)
    code = a.assemble(ORIGIN)
    contract = Contract(clobbers=_CLOBBERS, clobbers_flags=True, sections=named(len(aborts)))
    verify(code, contract)
    return code


def _flags(a: Asm) -> None:
    # Those that the trampoline has saved, among those that it leaves alone.
    # fmt: off
    a.mov(eax, dword[rbp + 8 * len(_CALL_SAVED)])
    a.and_(eax, ~_LOW_FLAGS)
    a.movzx(ecx, a.entry(_SAVED_FLAGS + 1, byte))
    a.or_(eax, ecx)
    a.movzx(ecx, a.entry(_SAVED_FLAGS, byte))
    a.shl(ecx, _OVERFLOW)
    a.or_(eax, ecx)
    # fmt: on


_CALL_DEPTH = _BODY_DEPTH + 8 * (1 + len(_CALL_SAVED))
_PLACES = {one: -_BODY_DEPTH - 8 * (2 + i) for i, one in enumerate(_CALL_SAVED)} | {
    one: -8 * (1 + i) for i, one in enumerate(_SAVED)
}
_CALL_FRAME = Saved(_PLACES, _CALL_DEPTH, _flags)


def _build_call(body: CallBody, traits: Traits) -> Code:
    a = Asm()
    a.depth = _BODY_DEPTH
    # fmt: off
    a.pushfq()
    a.cld()                                             # ABI 3.2.1: what C expects
    for register in _CALL_SAVED:
        a.push(register)
    a.mov(rbp, rsp)
    make_frame(a, body.vectors, traits, _CALL_FRAME)
    find_function(a, body)
    cold = emit_call(a, body, traits, 0, _CALL_FRAME, has_xstate=bool(body.vectors))
    leave_frame(a, body.vectors, traits, _CALL_FRAME)
    for register in reversed(_CALL_SAVED):
        a.pop(register)
    a.popfq()
    a.ret()
    # fmt: on
    cold(a)
    code = a.assemble(ORIGIN)
    # From its own entry: what the trampoline has saved, and the return address of its call.
    saved = (_BODY_DEPTH - 8 * len(_SAVED), _BODY_DEPTH + 8)
    contract = Contract(
        stack_bytes=_CALL_DEPTH - _BODY_DEPTH + frame_bytes(body.vectors, traits),
        clobbers=_CLOBBERS,
        clobbers_flags=True,
        slots=(saved,) if body.redirects else (),
        calls={None: CallEffect()},
        vector_state=body.vectors is not Vectors.NONE,
        xsave_bytes=traits.xstate_bytes,
    )
    verify(code, contract)
    return code
