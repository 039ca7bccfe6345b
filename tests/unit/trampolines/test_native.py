"""C functions are compiled, checked and laid out; GNU objdump reads them as they are placed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fentry.errors import BadInput
from fentry.trampolines import native
from fentry.trampolines.native import CFunction
from fentry.x86.calls import Vectors

HEAD = (
    "void callback(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, "
    "struct ftrace_regs *regs)"
)
CODE, DATA = 0x7F1200000040, 0x7F1230000080


def listing(code: bytes, address: int, path: Path) -> str:
    """What objdump makes of code at an address."""
    path.write_bytes(code)
    words = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-Mintel"]
    return subprocess.run(
        [*words, f"--adjust-vma={address:#x}", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def vectors_of(source: str) -> Vectors:
    """Which vector state a callback touches."""
    return CFunction.compile(source, vectors=True).traits.vectors


def test_references_lead_to_the_variables_wherever_it_is_placed(tmp_path: Path) -> None:
    source = f"""
    static unsigned long first = 0x1111111111111111, third = 0x3333333333333333;
    static volatile unsigned long empty;
    static const unsigned long table[] = {{0x4444444444444444, 0x5555555555555555}};
    {HEAD} {{ empty = first + third + table[ip & 1]; first = 0; third = 1; }}
    """
    code, data = CFunction.compile(source).placed(CODE, DATA)

    text = listing(code, CODE, tmp_path / "code")
    places = {int(at, 16) for at in re.findall(r"# 0x([0-9a-f]+)", text)}
    in_data = {data[at - DATA :][:8].hex()[:4] for at in places if DATA <= at < DATA + len(data)}
    in_code = {code[at - CODE :][:8].hex()[:4] for at in places if CODE <= at < CODE + len(code)}
    assert in_data == {"1111", "3333", "0000"}
    assert in_code == {"4444"}


def test_pointers_in_data_are_addresses_of_where_it_lies() -> None:
    source = f"""
    static const char *const names[] = {{"one", "two"}};
    {HEAD} {{ *(const char **)op->private = names[ip & 1]; }}
    """
    code, data = CFunction.compile(source).placed(CODE, DATA)

    pointers = [int.from_bytes(data[at : at + 8], "little") - CODE for at in (0, 8)]
    assert [code[at : at + 4] for at in pointers] == [b"one\0", b"two\0"]


def test_calls_within_the_source_lead_to_its_functions(tmp_path: Path) -> None:
    source = f"""
    __attribute__((noipa)) static long twice(long x) {{ return x + x; }}
    {HEAD} {{ *(long *)op->private = twice(ip); }}
    """
    function = CFunction.compile(source)
    code, _ = function.placed(CODE, DATA)

    text = listing(code, CODE, tmp_path / "code")
    (target,) = re.findall(r"call +0x([0-9a-f]+)", text)
    body = text[text.index(f"{int(target, 16):x}:") :].splitlines()[0]
    assert "lea    rax,[rdi+rdi*1]" in body
    assert function.traits.leaves is False


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("int other;", "the source defines no function callback"),
        (f"extern int y, x; {HEAD} {{ y = x; }}", "uses what it does not define: x, y"),
        (f"void puts(const char *); {HEAD} {{ puts(0); }}", "what it does not define: puts"),
        (f"static __thread long t; {HEAD} {{ t += ip; }}", "has thread local variables"),
        (f"{HEAD} {{ __builtin_trap(); }}", "holds a trap: ud2"),
        (f'{HEAD} {{ __asm__("syscall"); }}', "holds a forbidden instruction: syscall"),
        (f'{HEAD} {{ __asm__("std"); }}', "holds a forbidden instruction: std"),
        (f'{HEAD} {{ __asm__("cli"); }}', "holds a privileged instruction: cli"),
        (f'{HEAD} {{ __asm__("wrfsbase %rax"); }}', "holds a forbidden instruction: wrfsbase"),
        (f'{HEAD} {{ __asm__("movabs $callback, %rax"); }}', "has an absolute address in its code"),
        (f"{HEAD} {{ volatile char x[5000]; x[ip] = 1; }}", "bytes of stack, 1024 is the most"),
        (f"{HEAD} {{ volatile char x[ip]; x[0] = 1; }}", "uses an unknown amount of stack"),
        (f"{HEAD} {{ undeclared(); }}", "cannot compile callback: callback.c:1:"),
        (f"static double sum; {HEAD} {{ sum += ip; }}", "cannot compile callback"),
    ],
)
def test_what_could_harm_the_program_is_refused(source: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        CFunction.compile(source)


def test_vectors_are_seen_in_what_was_compiled() -> None:
    floating = f"static double sum; {HEAD} {{ sum += ip; }}"

    assert vectors_of(floating) is Vectors.XMM
    assert vectors_of(f"{HEAD} {{}}") is Vectors.NONE
    assert vectors_of(f'{HEAD} {{ __asm__("ldmxcsr (%rdi)"); }}') is Vectors.XMM
    assert vectors_of(f'{HEAD} {{ __asm__("fninit"); }}') is Vectors.ALL
    assert vectors_of(f'{HEAD} {{ __asm__("movq %mm0, %rax"); }}') is Vectors.ALL
    assert vectors_of(f'{HEAD} {{ __asm__("vpxor %xmm0, %xmm0, %xmm0"); }}') is Vectors.ALL
    assert vectors_of(f'{HEAD} {{ __asm__("kmovw %eax, %k1"); }}') is Vectors.ALL


def test_instructions_that_not_every_processor_has_are_seen() -> None:
    assert CFunction.compile(f'{HEAD} {{ __asm__("vzeroupper"); }}').traits.features == {"avx"}
    assert CFunction.compile(f"{HEAD} {{}}").traits.features == frozenset()


def test_a_call_through_a_pointer_is_seen() -> None:
    assert CFunction.compile(f"{HEAD} {{ ((void (*)(void))op->private)(); }}").traits.leaves


def test_no_compiler_is_said() -> None:
    with pytest.raises(BadInput, match="no /nonexistent/gcc on this machine"):
        CFunction.compile(f"{HEAD} {{}}", compiler="/nonexistent/gcc")


def test_regs_lie_as_in_the_kernel_s_own_header(tmp_path: Path) -> None:
    """asm/ptrace.h of the kernel's user headers is the oracle; its names are older ones."""
    kernel = {"bp": "rbp", "bx": "rbx", "ax": "rax", "cx": "rcx", "dx": "rdx", "si": "rsi"}
    kernel |= {"di": "rdi", "orig_ax": "orig_rax", "ip": "rip", "flags": "eflags", "sp": "rsp"}
    same = ["r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "cs", "ss"]
    lines = ["#include <stddef.h>", "#include <asm/ptrace.h>", "typedef struct pt_regs kernel;"]
    lines.append(f'#include "{Path(native.__file__).parent}/ftrace.h"')
    for ours, theirs in {**kernel, **dict.fromkeys(same, "")}.items():
        offsets = f"offsetof(struct ftrace_regs, {ours}) == offsetof(kernel, {theirs or ours})"
        lines.append(f'_Static_assert({offsets}, "{ours}");')
    source = tmp_path / "regs.c"
    source.write_text("\n".join(lines))

    subprocess.run(["gcc", "-fsyntax-only", str(source)], check=True)
