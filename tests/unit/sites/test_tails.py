"""Which ranges of stripped code are functions, and which are cold parts of others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyarrow
import pytest
from tests.support.compiled import addresses, assemble, compile_cpp, run

from fentry.sites.find import analyse
from fentry.sites.site import Reason
from fentry.symbols.elf import ElfImage

PART, FUNCTION = "part", "function"
ALONE = "mov (%rdi),%rax; lea 1(%rax),%rax; ret"


def framed(name: str, body: str, *, align: int = 16) -> str:
    """Code with a frame description and a symbol that stripping takes away."""
    start = f".balign {align}\n" + ("" if align > 1 else ".byte 0x90\n")
    return f"""
{start}.type {name},@function
{name}:
.cfi_startproc
{body}
.cfi_endproc
.size {name}, .-{name}
"""


def exported(name: str, body: str) -> str:
    return f".globl {name}\n" + framed(name, body)


def judge(directory: Path, *functions: str) -> dict[str, str]:
    """What every function of the stripped file is taken for, by the names it had before."""
    path = assemble(directory, ".text\n" + "".join(functions))
    names = {vaddr: name for name, vaddr in addresses(path).items()}
    subprocess.run(["strip", str(path)], check=True)
    sites = analyse(ElfImage.open(path)).sites
    rows = zip(sites["entry"].tolist(), sites["part"].tolist(), strict=True)
    return {names[entry]: PART if part else FUNCTION for entry, part in rows}


def test_a_function_that_only_a_tail_call_enters_is_one(tmp_path: Path) -> None:
    found = judge(
        tmp_path,
        exported("f", "mov (%rdi),%rdi; test %rdi,%rdi; jne tail; ret; nop; nop"),
        framed("tail", ALONE),
        exported("g", ALONE),
    )

    assert found["tail"] == FUNCTION


def test_one_that_nothing_enters_is_one(tmp_path: Path) -> None:
    found = judge(tmp_path, exported("f", ALONE), framed("unused", ALONE), exported("g", ALONE))

    assert found["unused"] == FUNCTION


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("mov (%rdi),%rax; lea 1(%rax),%rax; jmp back", PART),
        ("mov (%rdi),%rax; lea 1(%rax),%rax; jne back; ret", PART),
        ("mov -8(%rsp),%rax; lea 1(%rax),%rax; ret", PART),
        ("lea -24(%rsp),%rax; mov (%rax),%eax; ret", PART),
        ("lea -24(%rsp),%rsp; mov %eax,(%rsp); lea 24(%rsp),%rsp; ret", FUNCTION),
        ("sub $24,%rsp; mov %eax,(%rsp); add $24,%rsp; ret", FUNCTION),
        ("mov (%rdi),%rax; lea 1(%rax),%rax; jmp f", FUNCTION),
        ("mov (%rdi),%rax; lea 1(%rax),%rax; .byte 6", PART),
    ],
)
def test_what_may_go_back_or_read_what_was_left_is_a_part(
    tmp_path: Path, body: str, kind: str
) -> None:
    found = judge(
        tmp_path,
        exported("f", "mov (%rdi),%rdi; test %rdi,%rdi; jne tail\nback: ret; nop; nop; nop"),
        framed("tail", body),
        exported("g", ALONE),
    )

    assert found["tail"] == kind


@pytest.mark.parametrize(("callers", "kind"), [(1, PART), (2, FUNCTION)])
def test_an_unaligned_one_is_a_function_if_two_others_enter_it(
    tmp_path: Path, callers: int, kind: str
) -> None:
    jump = "mov (%rdi),%rdi; test %rdi,%rdi; jne tail; ret; nop; nop"
    found = judge(
        tmp_path,
        exported("f", jump),
        exported("g", jump if callers > 1 else ALONE),
        framed("tail", ALONE, align=1),
        exported("h", ALONE),
    )

    assert found["tail"] == kind


@pytest.mark.parametrize("called", [True, False])
def test_an_unaligned_one_is_a_function_if_it_is_called(tmp_path: Path, called: bool) -> None:
    # The five bytes in the immediate look like the same call, and are none.
    immediate = ".byte 0x48,0xb8,0xe8; .long tail-.-4; .byte 0,0,0; ret"
    found = judge(
        tmp_path,
        exported("f", "push %rbx; call tail; pop %rbx; ret" if called else immediate),
        framed("tail", ALONE, align=1),
        exported("g", ALONE),
    )

    assert found["tail"] == (FUNCTION if called else PART)


def test_one_beside_a_part_is_a_part(tmp_path: Path) -> None:
    jump = "mov (%rdi),%rdi; test %rdi,%rdi; jne {}; ret; nop; nop"
    found = judge(
        tmp_path,
        framed("first", ALONE),
        framed("second", ALONE, align=1),
        exported("f", jump.format("first")),
        exported("g", jump.format("second")),
    )

    assert found == {
        "first": PART,
        "second": PART,
        "f": FUNCTION,
        "g": FUNCTION,
    }


PROGRAM = """
#include <cstdio>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>
struct Base { virtual int value(int) = 0; virtual ~Base() {} };
struct Odd : Base {
    int value(int n) override { if (n > 99) throw std::out_of_range("odd"); return n | 1; }
};
struct Even : Base {
    std::string text;
    int value(int n) override { text += "x"; return n & ~1; }
};
__attribute__((noinline)) static int leaf(int n) { return n < 0 ? -n : n * 3; }
__attribute__((noinline)) static int tail(int n, int *p) { p[0] += n; return leaf(n + p[1]); }
int work(std::vector<Base *> &all, std::map<std::string, int> &seen, int n) {
    for (auto *one : all) {
        try { seen[std::to_string(one->value(n))]++; }
        catch (std::out_of_range &error) { std::puts(error.what()); if (n > 200) throw; }
    }
    int pair[2] = {n, 3};
    if (std::regex_match(std::to_string(n), std::regex("[0-9]+"))) return tail(n, pair);
    return leaf(n);
}
int main(int argc, char **argv) {
    Odd odd; Even even;
    std::vector<Base *> all{&odd, &even};
    std::map<std::string, int> seen;
    return work(all, seen, argc) & 1;
}
"""


@pytest.mark.parametrize(
    "options",
    [
        "-O2 -fPIE -pie",
        *(
            pytest.param(options, marks=pytest.mark.exhaustive)
            for options in (
                "-O2 -fno-pie -no-pie",
                "-O1 -fno-pie -no-pie",
                "-O3 -fPIE -pie",
                "-Os -fPIE -pie",
            )
        ),
    ],
)
def test_no_cold_part_of_a_program_is_taken_for_a_function(tmp_path: Path, options: str) -> None:
    flags, *pie = options.split()
    path = compile_cpp(tmp_path, PROGRAM, flags, *pie)

    # -Os aligns nothing: then functions that one tail call enters cannot be told from parts
    nr_cold = assert_parts_are_known(path, tmp_path, most_missed=0.1 if flags == "-Os" else 0.02)
    assert nr_cold >= 4 or flags in ("-O1", "-Os")  # which do not split functions


def test_no_cold_part_of_a_large_library_is_taken_for_a_function(tmp_path: Path) -> None:
    library = Path(pyarrow.__file__).parent / "libarrow_python.so"

    assert assert_parts_are_known(library, tmp_path, most_missed=0.01) > 500


def assert_parts_are_known(path: Path, directory: Path, *, most_missed: float) -> int:
    """Compares what is found in a stripped copy with the names in `path`; the number of parts.

    `most_missed`: the greatest share of functions that may be taken for parts.
    """
    symbols = run("nm", "--defined-only", str(path)).splitlines()
    code = [line.split() for line in symbols if line.split()[1] in "tTwW"]
    whole = {int(vaddr, 16) for vaddr, _, name, *_ in code if ".cold" not in name}
    cold = {int(vaddr, 16) for vaddr, _, name, *_ in code if ".cold" in name} - whole
    stripped = directory / "stripped"
    run("strip", "-o", str(stripped), str(path))

    sites = analyse(ElfImage.open(stripped)).sites
    is_site = sites["reason"] == Reason.NONE
    taken = set(sites["entry"][is_site & ~sites["part"]].tolist())
    parts = set(sites["entry"][sites["part"]].tolist())
    assert not taken & cold
    assert len(parts & whole) <= len(whole) * most_missed
    return len(cold)
