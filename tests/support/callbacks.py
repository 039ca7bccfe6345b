"""C callbacks that the tests use, and what they leave in their private memory."""

from __future__ import annotations

import struct

from fentry.dispatch.ops import Callback as CallbackKind
from fentry.dispatch.ops import Flags, Ops
from fentry.session import Session
from fentry.trampolines.native import CFunction

SIGNATURE = (
    "void callback(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, "
    "struct ftrace_regs *regs)"
)
PRIVATE = "unsigned long *word = op->private;\n"

# Adds one, the second argument, and whether ip, parent_ip and regs agree with each other.
SUM = (
    f"{SIGNATURE} {{ {PRIVATE} atomic_add(word, 1); atomic_add(word + 1, regs->si);"
    " atomic_add(word + 2, regs->ip == ip && *(unsigned long *)regs->sp == parent_ip"
    " && regs->cs == 0x33 && op->id); }"
)
# The bits of the first floating-point argument, and a count.
FIRST_DOUBLE = (
    f"{SIGNATURE} {{ {PRIVATE} atomic_add(word, 1);"
    " atomic_add(word + 1, ftrace_regs_get_xmm(regs, 0) == 0x4004000000000000); }"
)
_GENERAL = ["rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"]
_OLD = """unsigned short control = 0x27f;
__asm__ volatile("fldcw %0; fldz; fld1; fldz" :: "m"(control));"""
_MXCSR = """unsigned int mxcsr = 0x1f80 ^ 0x6000;
__asm__ volatile("ldmxcsr %0" :: "m"(mxcsr));"""


def _clobber(*more: str) -> str:
    # All ones in the registers that C may change, and in every xmm register.
    general = "; ".join(f"mov $-1, %%{name}" for name in _GENERAL)
    names = ", ".join(f'"{name}"' for name in _GENERAL)
    vectors = "; ".join(f"pcmpeqd %%xmm{n}, %%xmm{n}" for n in range(16))
    lines = [f"{SIGNATURE} {{ {PRIVATE} atomic_add(word, 1);", _MXCSR, *more]
    lines.append(f'__asm__ volatile("{vectors}" ::: "memory");')
    lines.append(f'__asm__ volatile("{general}" ::: {names}, "cc"); }}')
    return "\n".join(lines)


# Everything that a C function may change in general registers, and vectors, MXCSR, x87.
CLOBBERS = {
    "xmm": _clobber(),
    "x87": _clobber(_OLD),
    "avx": _clobber(_OLD, '__asm__ volatile("vzeroall");'),
}
# Writes all registers of its regs that it may write, and goes on elsewhere.
REDIRECT = f"{SIGNATURE} {{ {PRIVATE} atomic_add(word + 1, 1); regs->ip = word[0]; }}"
CHANGE = f"{SIGNATURE} {{ {PRIVATE} atomic_add(word, 1); regs->di += 100000; }}"
# Takes some microseconds, so that signals find it at work: counts calls, and those that ended.
SLOW = (
    f"{SIGNATURE} {{ {PRIVATE} atomic_add(word, 1);"
    " for (int i = 0; i < 5000; i++) barrier(); atomic_add(word + 1, 1); }"
)
# Goes on when its first word is not 0 any more.
WAITING = (
    f"{SIGNATURE} {{ {PRIVATE} atomic_add(word + 1, 1); while (!READ_ONCE(word[0])) barrier();"
    " atomic_add(word + 2, 1); }"
)
# Calls a function of the target, whose address is in its private memory.
CALL_BACK = f"{SIGNATURE} {{ {PRIVATE} atomic_add(word + 1, 1); ((long (*)(long))word[0])(3); }}"

# Direct code that calls a C function of its own, with the registers that C may change saved around.
_SAVED = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "rbp")
_AROUND = (
    "pushfq; cld; "
    + "".join(f"push %{name}; " for name in _SAVED)
    + "mov %rsp, %rbp; and $-16, %rsp; call work; mov %rbp, %rsp; "
    + "".join(f"pop %{name}; " for name in reversed(_SAVED))
    + "popfq; ret"
)
DIRECT_WAITING = f"""static unsigned long words[3];
__attribute__((noinline, used)) void work(void)
{{
    atomic_add(words, 1);
    while (!READ_ONCE(words[1])) barrier();
    atomic_add(words + 2, 1);
}}
__attribute__((naked)) void direct(void) {{ __asm__("{_AROUND}"); }}
"""
DIRECT_SLOW = f"""static unsigned long words[2];
__attribute__((noinline, used)) void work(void)
{{
    atomic_add(words, 1);
    for (int i = 0; i < 5000; i++) barrier();
    atomic_add(words + 1, 1);
}}
__attribute__((naked)) void direct(void) {{ __asm__("{_AROUND}"); }}
"""

FULL = Flags.SAVE_REGS | Flags.IPMODIFY


def calling(
    function: CFunction, *wanted: str, flags: Flags = Flags.NONE, words: tuple[int, ...] = (0,) * 4
) -> Ops:
    """Ops that call a C function, with words of private memory."""
    private = struct.pack(f"<{len(words)}Q", *words)
    return Ops(CallbackKind.CALL, wanted, function=function, flags=flags, private=private)


def words_of(session: Session, ops: Ops) -> tuple[int, ...]:
    """The private memory of ops, as words."""
    memory = session.private(ops)
    return struct.unpack(f"<{len(memory) // 8}Q", memory)


def address_of(session: Session, name: str) -> int:
    """Where the function of the target is that goes by this name."""
    members = session.functions.match((name,), ())
    (ip,) = session.functions.table.ip[members].tolist()
    return int(ip)


def storm(jump: int) -> tuple[str, ...]:
    """Arguments of sigstorm.c whose handlers leave by a jump, or do not.

    The alternate stack has SIGSTKSZ bytes; siglongjmp lets signals in before it leaves that stack,
    and with AVX-512 each takes 3.6 kB of it, so there is more where handlers jump.
    """
    return (f"jump={jump}", "hz=2000", "stack=65536") if jump else ("jump=0", "stack=8192")
