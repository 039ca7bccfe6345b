"""What a piece of generated code promises to the program it runs in; `verify` proves it.

Offsets of the stack are relative to rsp at the entry of the code: [0] is what rsp points to there
(for code that is called, its return address), negative offsets are below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fentry.x86.registers import CALLER_SAVED, Register

# What the kernel expects in the four bytes before an abort handler (glibc's RSEQ_SIG on x86,
# the operand of a `ud1`; Linux include/uapi/linux/rseq.h).
RSEQ_SIGNATURE = 0x53053053


@dataclass(frozen=True, slots=True)
class CallEffect:
    """What a call does to the state of its caller.

    `aligned`: rsp must be a multiple of 16 at the call (System V ABI 3.2.2). `body`: the callee is
    the traced function itself, so at the call all must be as at an exit with rsp at `body_rsp`,
    and what it leaves in registers is what must be there at the exits after it. `restores`:
    offsets of stack slots, 8 bytes each, that hold their contents at entry again afterwards. The
    callee is trusted not to write into its caller's stack otherwise.
    """

    clobbers: tuple[Register, ...] = CALLER_SAVED
    clobbers_flags: bool = True
    aligned: bool = True
    body: bool = False
    body_rsp: int = 8
    restores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A restartable sequence: the instructions from label `start` up to label `end`.

    The kernel may move a thread from any of them to label `abort` with its registers as they are,
    and refuses if `signature` is not in the four bytes before (Linux kernel/rseq.c).
    """

    start: str
    end: str
    abort: str
    signature: int = RSEQ_SIGNATURE


@dataclass(frozen=True, slots=True)
class Contract:
    """The promises; each default is the strictest.

    `stack_bytes`: how far below the entry rsp may be used. `returns`: whether `ret` is an exit,
    with `ret_pops` bytes more than the return address. `exits`: addresses outside that may be
    jumped to, `cells`: addresses of qwords that may be jumped through, both with the offset of
    rsp at that time. `clobbers`, `clobbers_flags`: what need not be restored. `slots`: (start,
    stop) offsets at or above the entry rsp that may be written. `redirects`: ret may go to an
    address stored in a slot. `red_zone`: the 128 bytes below the entry rsp belong to the program
    (ABI 3.2.2). `entry_alignment`: rsp modulo 16 at entry where it is known. `calls`: by target,
    by address of the qword called through, or None for all other indirect calls. `vector_state`:
    vector, x87 and mask state may be touched; that it is restored is not proved. `xsave_bytes`:
    the size of xsave areas on the stack. `entries`: more entry labels, each with a label whose
    state it starts with.
    """

    stack_bytes: int = 0
    returns: bool = True
    ret_pops: int = 0
    exits: Mapping[int, int] = field(default_factory=dict)
    cells: Mapping[int, int] = field(default_factory=dict)
    clobbers: tuple[Register, ...] = ()
    clobbers_flags: bool = False
    slots: tuple[tuple[int, int], ...] = ()
    redirects: bool = False
    red_zone: bool = False
    entry_alignment: int | None = None
    calls: Mapping[int | None, CallEffect] = field(default_factory=dict)
    vector_state: bool = False
    xsave_bytes: int = 0
    syscalls: bool = False
    entries: Mapping[str, str] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
