"""The code that makes system calls in the target and then puts the thread back by itself.

It uses no stack and no writable memory: what it needs lies behind it as words, filled in for
each use.  The controller normally takes the thread away at the exit of the last call; the rest
runs only when the controller has died (docs/design/attaching.md).

    offset   what
    0        SIGNATURE, 8 bytes: recognises a stub left by a dead controller
    8        code
    ...      words: calls (7 each: number and arguments), then registers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from fentry.process.ptrace import Regs
from fentry.process.restart import resumed
from fentry.x86.asm import Asm
from fentry.x86.operands import qword
from fentry.x86.registers import (
    al,
    eax,
    edi,
    edx,
    r8,
    r9,
    r10,
    r10d,
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
)

SIGNATURE = b"fentry:1"
MAX_CALLS = 6
TEXT_BYTES = 32

NR_RT_SIGPROCMASK = 14
SIG_SETMASK = 2
SIGSET_BYTES = 8

TRAP_FLAG = 1 << 8
DIRECTION_FLAG = 1 << 10
OVERFLOW_FLAG = 1 << 11

_NO_SYSCALL = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Call:
    """One system call of the target.

    `fd` is the index of the argument that is the result of the stub's first call; `text` is a
    string whose address becomes argument 0 (one text a stub).
    """

    number: int
    arguments: tuple[int, ...] = ()
    fd: int | None = None
    name: str = ""
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class _Template:
    # Bytes for any address (all references are relative); `words` maps a name to its offset.
    code: bytes
    words: dict[str, int]


_RESTORED = {
    "rbx": rbx, "rbp": rbp, "r12": r12, "r13": r13, "r14": r14, "r15": r15, "rdi": rdi,
    "rsi": rsi, "rdx": rdx, "r10": r10, "r8": r8, "r9": r9, "rcx": rcx, "r11": r11, "rax": rax,
}  # fmt: skip
_ARGUMENTS = (rdi, rsi, rdx, r10, r8, r9)


@cache
def _template(fds: tuple[int | None, ...], backwards: bool) -> _Template:
    # ON ENTRY  rsp and the flags of the thread (TF and DF clear), all signals blocked
    # ON EXIT   every register, the flags and the mask as the thread had them
    # STACK     none
    a = Asm()
    # fmt: off
    for i, fd in enumerate(fds):
        a.mov(rax, qword[rip(f"number{i}")])
        for j, register in enumerate(_ARGUMENTS):
            if j == fd:
                a.mov(register, rbx)                    # = the descriptor made by call 0
            else:
                a.mov(register, qword[rip(f"call{i}.{j}")])
        a.syscall()
        if i == 0:
            a.mov(rbx, rax)
    a.mov(rax, qword[rip("flags")])                     # ah = SF ZF AF PF CF, al = OF
    a.add(al, 0x7F)                               # OF again
    a.sahf()
    if backwards:
        a.std()
    a.mov(eax, NR_RT_SIGPROCMASK)                       # the flags survive a system call
    a.mov(edi, SIG_SETMASK)
    a.lea(rsi, qword[rip("mask")])
    a.mov(edx, 0)
    a.mov(r10d, SIGSET_BYTES)
    a.syscall()
    for name, register in _RESTORED.items():
        a.mov(register, qword[rip(name)])
    a.jmp(qword[rip("rip")])
    # fmt: on
    a.align(8)
    for i in range(len(fds)):
        a.label(f"number{i}")
        a.quad(0)
        for j in range(6):
            a.label(f"call{i}.{j}")
            a.quad(0)
    for name in ("flags", "mask", "rip", *_RESTORED):
        a.label(name)
        a.quad(0)
    a.label("text")
    a.bytes(bytes(TEXT_BYTES))
    code = a.assemble(0x10000)
    words = {name: address - 0x10000 for name, address in code.labels.items()}
    return _Template(code.data, words)


def prepare() -> None:
    """Assemble the stubs that an attach needs, so that no stop has to wait for it."""
    for fds in ((None, 4, 0), *((None,) * count for count in range(1, MAX_CALLS + 1))):
        _template(fds, False)


def stub_bytes(calls: Sequence[Call]) -> int:
    """How much room the stub for `calls` needs."""
    return len(SIGNATURE) + len(_template(tuple(call.fd for call in calls), False).code)


def build_stub(calls: Sequence[Call], regs: Regs, mask: int, base: int) -> tuple[bytes, int]:
    """(bytes of the stub, address of its first instruction) for a thread with `regs` and `mask`.

    `base` is the address in the target where the bytes will lie.
    """
    backwards = bool(regs.eflags & DIRECTION_FLAG)
    template = _template(tuple(call.fd for call in calls), backwards)
    code = bytearray(template.code)

    def put(name: str, value: int) -> None:
        offset = template.words[name]
        code[offset : offset + 8] = (value & _NO_SYSCALL).to_bytes(8, "little")

    for i, call in enumerate(calls):
        put(f"number{i}", call.number)
        for j, argument in enumerate(call.arguments):
            put(f"call{i}.{j}", argument)
        if call.text:
            offset = template.words["text"]
            code[offset : offset + TEXT_BYTES] = call.text.ljust(TEXT_BYTES, b"\0")
            put(f"call{i}.0", base + len(SIGNATURE) + offset)
    put("flags", (regs.eflags & 0xD5) << 8 | bool(regs.eflags & OVERFLOW_FLAG))
    put("mask", mask)
    first, result = resumed(regs)
    put("rip", first)
    for name in _RESTORED:
        put(name, getattr(regs, name))
    put("rax", result)
    return SIGNATURE + bytes(code), base + len(SIGNATURE)


def entry_regs(regs: Regs, entry: int) -> Regs:
    """Registers that send the thread into the stub at `entry`."""
    moved = regs.copy()
    moved.rip = entry
    moved.rax = 0
    moved.orig_rax = _NO_SYSCALL
    moved.eflags &= ~(TRAP_FLAG | DIRECTION_FLAG)
    return moved
