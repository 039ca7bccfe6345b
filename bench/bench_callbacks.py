"""What one call of a C function costs, by flavour of its trampoline, beside an empty trampoline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from fentry.dispatch.ops import Callback, Flags, Ops
from fentry.session import Session
from fentry.trampolines.native import CFunction
from support import TARGETS, Table, build, program, take_turns, target_cpu

CALLS = 20_000
ROUNDS = 100
FUNCTION = "plain_count"
SOURCE = """
void callback(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op,
              struct ftrace_regs *regs)
{
    ++*(unsigned long *)op->private;
}
"""
WIDE = SOURCE.replace("{\n", '{\n    __asm__ volatile("vzeroupper");\n')
FLAVOURS = {
    "general registers": (SOURCE, Flags.NONE),
    "general registers, RECURSION": (SOURCE, Flags.RECURSION),
    "SAVE_REGS: xmm and MXCSR as well": (SOURCE, Flags.SAVE_REGS),
    "SAVE_REGS, IPMODIFY": (SOURCE, Flags.SAVE_REGS | Flags.IPMODIFY),
    "SAVE_REGS, IPMODIFY, RECURSION": (
        SOURCE, Flags.SAVE_REGS | Flags.IPMODIFY | Flags.RECURSION,
    ),
    "a function that uses AVX or x87: XSAVE": (WIDE, Flags.SAVE_REGS),
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    path, cpu = build(TARGETS / "calls.c"), target_cpu()
    with ExitStack() as stack:
        plain = stack.enter_context(program(path, f"cpu={cpu}"))
        cases: dict[str, Callable[[], float]] = {
            "untraced": lambda: plain.per_call("plain_untraced", CALLS),
            "empty trampoline": lambda: plain.per_call("call_trampoline", CALLS),
        }
        for name, (source, flags) in FLAVOURS.items():
            function = CFunction.compile(source)
            target = stack.enter_context(program(path, f"cpu={cpu}"))
            session = stack.enter_context(Session(target.pid))
            session.register(
                Ops(Callback.CALL, (FUNCTION,), function=function, flags=flags, private=bytes(8))
            )
            cases[name] = lambda t=target: t.per_call(FUNCTION, CALLS)  # type: ignore[misc]
        samples = take_turns(cases, ROUNDS)
    table = Table(
        "One call of a C function that counts, loop and called function included",
        ("", "ns, min", "ns, median"),
    )
    for name, values in samples.items():
        table.add(name, f"{values.min():.2f}", f"{float(sorted(values)[ROUNDS // 2]):.2f}")
    table.notes.append(f"{ROUNDS} rounds that take turns, {CALLS} calls each, one processor")
    table.print()


if __name__ == "__main__":
    main()
