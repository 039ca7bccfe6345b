"""Faults that a reading of the code found, each by the run that showed it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.compiled import assemble, compile_c

from fentry.errors import LockError, StopTimeout
from fentry.session import Session, attach

# Alike to the byte but for the frame: an immediate of one byte, and of four.
PLUG = """
long helper(long x);
long plug(long x) { volatile char room[SIZE]; room[0] = x; return helper(room[0]) + ADD; }
__attribute__((noipa)) long helper(long x) { return x; }
"""


class Swap:
    """The program swap.c, step by step, and two libraries for it."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self.pid = process.pid
        flags = ("-O0", "-shared", "-fPIC", "-Wl,-Bsymbolic", "-fcf-protection=none")
        self.one, self.other, self.unlike = (
            compile_c(directory, PLUG, *flags, *more, f"-DADD={add}", name=f"lib{add}.so")
            for add, more in enumerate(
                (
                    ("-DSIZE=24",),
                    ("-DSIZE=600",),
                    ("-DSIZE=600", "-fomit-frame-pointer"),
                ),
                1,
            )
        )

    def say(self, words: str) -> str:
        """What the program answers."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def swapping(directory: Path) -> Iterator[Swap]:
    program = [str(build("swap.c"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Swap(process, directory)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait() == 0
        finally:
            process.kill()


def count(session: Session, name: str) -> int:
    (ops,) = session.ops.values()
    return tracing.counted(session, ops)[name]


def test_a_library_that_is_loaded_again_where_it_was_is_traced_again(tmp_path: Path) -> None:
    with swapping(tmp_path) as swap:
        first = swap.say(f"o {swap.one}")
        with attach(swap.pid) as session:
            session.register(tracing.counting("plug"))
            assert swap.say("c") == "6"
            assert swap.say(f"o {swap.one}") == first
            assert [module.name for module in session.follow_modules()] == [swap.one.name]
            assert session.follow_modules() == []
            assert swap.say("c") == swap.say("c") == "6"
            assert count(session, "plug") == 3


@pytest.mark.parametrize("look", [True, False])
def test_another_library_in_its_place_gets_its_own_code(tmp_path: Path, look: bool) -> None:
    with swapping(tmp_path) as swap:
        first = swap.say(f"o {swap.one}")
        with attach(swap.pid) as session:
            session.register(tracing.counting("helper"))
            assert swap.say(f"o {swap.other}") == first
            if look:
                assert [module.name for module in session.follow_modules()] == [swap.other.name]
            ops = session.register(tracing.counting("plug"))
            assert swap.say("c") == "7"
            assert tracing.counted(session, ops)["plug"] == 1


def test_rows_of_the_library_before_are_not_those_of_the_next(tmp_path: Path) -> None:
    with swapping(tmp_path) as swap:
        first = swap.say(f"o {swap.one}")
        with attach(swap.pid) as session:
            session.register(tracing.counting("plug"))
            assert swap.say("c") == "6"
            assert swap.say("x") == "(nil)"
            session.follow_modules()
            assert swap.say(f"o {swap.other}") == first
            session.follow_modules()
            assert swap.say("c") == "7"
            assert count(session, "plug") == 1
            assert swap.say(f"o {swap.one}") == first
            session.follow_modules()
            assert swap.say("c") == "6"
            swap.say(f"o {swap.other}")
            session.follow_modules()
        assert session.foreign == ()
        assert swap.say("c") == "7"
        assert swap.say(f"o {swap.one}") == first
        assert swap.say("c") == "6"


MOVES = "mov %rcx,%rcx; mov %rdx,%rdx; mov %rsi,%rsi; mov %rdi,%rdi;"  # 12 bytes
BUILD = """
.macro function name
.globl \\name
.type \\name,@function
\\name: .cfi_startproc
.endm
.macro end name
.cfi_endproc
.size \\name,.-\\name
.endm
.text
.fill 300, 1, 0
function big
    {MOVES} {MOVES} mov $1,%r8d; mov %r8d,%r8d; {MOVES} lea 1(%rdi),%rax; ret
end big
function tiny
    xor %eax,%eax; ret
end tiny
.fill 300, 1, 0
function plug
    sub $8,%rsp; call tiny; call big; call enter; add $8,%rsp; ret
end plug
function enter
    mov %rsi,%rsi; mov %rsi,%rsi; {ENTER}; ret; nop; nop; nop; nop
end enter
""".replace("{MOVES}", MOVES)


@pytest.mark.parametrize("traced", [True, False])
def test_another_build_of_a_library_in_its_place_gets_carriers_of_its_own(
    tmp_path: Path, traced: bool
) -> None:
    # The second one enters what was a carrier of the first; entries and names are the same.
    builds = [
        assemble(tmp_path, BUILD.replace("{ENTER}", enter), name=f"build{number}.so")
        for number, enter in enumerate(("lea 1(%rdi),%rax", "jmp big + 45"))
    ]
    link = tmp_path / "libplug.so"
    with swapping(tmp_path) as swap:
        link.symlink_to(builds[0])
        first = swap.say(f"o {link}")
        with attach(swap.pid) as session:
            ops = session.register(tracing.counting("*!tiny"))
            assert session.functions.table.carrier[ops.members].tolist() == [10]
            assert swap.say("c") == "6"
            if not traced:
                session.unregister(ops)
            link.unlink()
            link.symlink_to(builds[1])
            assert swap.say(f"o {link}") == first
            if traced:
                session.follow_modules()
            else:
                ops = session.register(tracing.counting("*!tiny"))
            assert swap.say("c") == swap.say("c") == "6"
            assert tracing.counted(session, ops)["tiny"] == 2
        assert swap.say("c") == "6"


def test_ops_can_be_unregistered_after_a_library_was_loaded(tmp_path: Path) -> None:
    with swapping(tmp_path) as swap, attach(swap.pid) as session:
        ops = session.register(tracing.counting("main"))
        swap.say(f"o {swap.one}")
        session.unregister(ops)
        assert not session.ops
        assert swap.say("c") == "6"


def test_ops_fit_their_tables_when_a_change_fails_after_a_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with swapping(tmp_path) as swap:
        with attach(swap.pid) as session:
            ops = session.register(tracing.counting("main"))
            swap.say(f"o {swap.one}")
            apply = session._transaction.apply

            def fail(**written: object) -> None:
                session._known.take_over()
                raise StopTimeout("the target cannot be stopped")

            monkeypatch.setattr(session._transaction, "apply", fail)
            with pytest.raises(StopTimeout):
                session.unregister(ops)
            monkeypatch.setattr(session._transaction, "apply", apply)
            assert len(ops.members) == len(session.functions.table)
            session.follow_modules()
            session.unregister(ops)


COMPUTED = """
#include <stdio.h>
__attribute__((noinline)) int f(const unsigned char *pc, int x) {
    static const int offsets[] = {&&again - &&again, &&add - &&again, &&out - &&again};
again:;
    x += 3;
    void *next = (char *)&&again + offsets[*pc++];
    goto *next;
add: x += 7; goto *((char *)&&again + offsets[*pc++]);
out: return x;
}
int main(void) {
    static const unsigned char code[] = {0, 1, 0, 2};
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    int line;
    while ((line = getchar()) != EOF)
        if (line == 'c')
            printf("%d\\n", f(code, 1));
    return 0;
}
"""


@pytest.mark.parametrize("flags", ["-O0", "-O1", "-O2"])
@pytest.mark.parametrize("pie", [("-fPIE", "-pie"), ("-fno-pie", "-no-pie")])
def test_computed_gotos_go_right_with_all_functions_traced(
    tmp_path: Path, flags: str, pie: tuple[str, str]
) -> None:
    # the sum goes through the stack, or the label is the entry itself
    program = compile_c(tmp_path, COMPUTED, flags, *pie, "-fcf-protection=none")
    pipe = subprocess.PIPE
    with subprocess.Popen([str(program)], stdin=pipe, stdout=pipe, text=True) as process:
        try:
            swap = object.__new__(Swap)
            swap.process = process
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            before = swap.say("c")
            with attach(process.pid) as session:
                ops = session.register(tracing.counting("*"))
                assert [swap.say("c") for _ in range(3)] == [before] * 3
                assert tracing.counted(session, ops)["f"] in (0, 3)
        finally:
            process.kill()


def test_whoever_registers_after_another_has_detached_is_told_so(tmp_path: Path) -> None:
    with swapping(tmp_path) as swap:
        session = attach(swap.pid)
        session.register(tracing.counting("main"))
        tracing.detach_as_command(swap.pid)
        with pytest.raises(LockError, match="no longer traced"):
            session.register(tracing.counting("*"))
        session.close()


def test_a_detach_leaves_a_library_alone_that_lies_where_a_traced_one_lay(tmp_path: Path) -> None:
    with swapping(tmp_path) as swap:
        first = swap.say(f"o {swap.one}")
        with attach(swap.pid) as session:
            ops = session.register(tracing.counting("plug"))
            assert swap.say(f"o {swap.unlike}") == first
            session.set_filter(ops, ("main",))
        assert session.foreign == () and not session.parked_bytes
        assert swap.say("c") == "8"
