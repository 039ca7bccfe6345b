"""Who calls: the CPU and the thread, as generated code finds them, and whether it is wanted."""

from __future__ import annotations

from fentry.region.layout import MAX_TIDS, THREAD_BYTES_OFFSET, THREADS_WORD_OFFSET
from fentry.ring.layout import TID_MASK
from fentry.trampolines.body import Traits
from fentry.x86.asm import Asm
from fentry.x86.operands import byte, dword, qword, word
from fentry.x86.registers import Register, ah, al, eax, edx, fs, rcx, rdx

CPUNODE_SELECTOR = 0x7B  # GDT_ENTRY_CPUNODE 15, RPL 3: arch/x86/include/asm/segment.h
CPU_MASK = 0xFFF  # VDSO_CPUNODE_MASK, same file

RSEQ_CPU_ID = 4  # struct rseq, include/uapi/linux/rseq.h
RSEQ_CS = 8


def emit_cpu(a: Asm, traits: Traits, wide: Register, low: Register) -> None:
    """`wide` = number of the CPU, `low` its low half.  Clobbers the flags."""
    if traits.rdpid:
        a.rdpid(wide)
    else:
        a.mov(low, CPUNODE_SELECTOR)
        a.lsl(low, low)
    a.and_(low, CPU_MASK)


def emit_thread_pointer(a: Asm, traits: Traits, register: Register = rdx) -> None:
    """`register` = fs base, which may be 0 where threads have no rseq."""
    # psABI 6.4.2 (TLS variant II): the word at fs:0 holds the address of itself.
    if traits.fsgsbase:
        a.rdfsbase(register)
    else:
        a.mov(register, qword[fs, 0])


def emit_or_tid(
    a: Asm, traits: Traits, into: Register, wide: Register, low: Register, no_tls: str
) -> None:
    """Or the thread's tid into `into`; nothing where it is not known.  Clobbers `wide`, of which
    `low` is the low half, and the flags; `no_tls` is a label of its own."""
    if traits.tid_offset is None:
        return
    # fmt: off
    if traits.rseq_offset is not None:                  # then every thread has a thread pointer
        a.mov(low, dword[fs, traits.tid_offset])
    else:
        emit_thread_pointer(a, traits, wide)
        a.test(wide, wide)
        a.je(no_tls)
        a.mov(low, dword[wide + traits.tid_offset])
    a.and_(low, TID_MASK)
    a.or_(into, low)
    a.label(no_tls)
    # fmt: on


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
