"""Landing pads: read as objdump shows them, and refused where a table makes no sense."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path

import pyarrow
import pytest
from tests.support.compiled import addresses, assemble, compile_cpp, run

from fentry.sites.find import analyse
from fentry.sites.site import Reason
from fentry.symbols import landing_pads
from fentry.symbols.elf import ElfImage
from fentry.symbols.landing_pads import _read

# A function that calls, its landing pad in a part of it: two bytes behind the start of that.
SPLIT = """
.text
.globl f
.type f,@function
f: .cfi_startproc
.cfi_personality 0x9b,personality
.cfi_lsda 0x1b,table
1: call f
2: jmp f.cold
.cfi_endproc
.size f,.-f
.section .text.unlikely,"ax",@progbits
.type f.cold,@function
f.cold: .cfi_startproc
xor %eax,%eax
pad: mov $7,%ecx
add %ecx,%eax
ret
.cfi_endproc
.size f.cold,.-f.cold
.section .gcc_except_table,"a",@progbits
table: {}
.data
personality: .quad 0
.section .note.GNU-stack,"",@progbits
"""
CALL_SITES = ".byte 0x01; .uleb128 4f-3f; 3: .uleb128 0,2b-1b,{},0; 4:"
FIXED = ".byte 0x03; .uleb128 4f-3f; 3: .long 0,2b-1b,{}; .uleb128 0; 4:"


@pytest.mark.parametrize(
    "table",
    [
        # LPStart in several forms; the type table left out, or there
        ".byte 0x1b; .long f.cold-.; .byte 0xff; " + CALL_SITES.format("pad-f.cold"),
        ".byte 0x1b; .long f.cold-.; .byte 0x9b; .uleb128 9f-8f; 8: "
        + CALL_SITES.format("pad-f.cold") + " .long 0; 9:",
        ".byte 0x1b; .long f.cold-.; .byte 0xff; " + FIXED.format("pad-f.cold"),
    ],
)  # fmt: skip
def test_a_pad_in_the_window_of_a_part_makes_it_shorter_or_refuses_it(
    tmp_path: Path, table: str
) -> None:
    path = assemble(tmp_path, SPLIT.format(table))
    image = ElfImage.open(path)
    found = analyse(image)
    (part,) = found.sites[found.sites["part"]]

    assert image.landing_pads.vaddrs.tolist() == [addresses(path)["pad"]]
    assert not image.landing_pads.unknown
    assert part["entry"] == addresses(path)["f.cold"]
    assert part["reason"] == Reason.POINTER
    assert found.blockers[int(part["entry"])] == addresses(path)["pad"]


@pytest.mark.parametrize(
    "table",
    [
        ".byte 0xff, 0xff, 0x01, 3, 0, 5, 2",  # a call site cut off
        ".byte 0xff, 0xff, 0x01, 5, 0, 5, 2, 0, 0",  # one and a quarter
        ".byte 0xff, 0xff, 0x07, 4, 0, 5, 2, 0",  # an encoding that does not exist
        ".byte 0xff, 0xff, 0x01; .uleb128 4f-3f; 3: .uleb128 0,5,0x7ffffff,0; 4:",  # not code
    ],
)
def test_a_table_that_is_not_understood_refuses_all_parts(tmp_path: Path, table: str) -> None:
    image = ElfImage.open(assemble(tmp_path, SPLIT.format(table)))
    found = analyse(image)

    assert image.landing_pads.unknown
    assert found.sites["reason"][found.sites["part"]].tolist() == [Reason.POINTER]
    assert found.sites["reason"][~found.sites["part"]].tolist() == [Reason.NONE]


PROGRAM = """
#include <string>
#include <stdexcept>
#include <cstdio>
struct Loud { ~Loud() { std::puts("gone"); } };
__attribute__((noinline)) int f(int n) { if (n > 3) throw std::out_of_range("f"); return n; }
__attribute__((noinline)) int g(int n) { Loud one; return f(n) + 1; }
__attribute__((noinline)) int h(int n) {
    try { std::string text(n, 'x'); return g(n) + text.size(); }
    catch (std::out_of_range &e) { std::puts(e.what()); return 3; }
    catch (...) { return 4; }
}
int main(int argc, char **) { return h(argc); }
"""


@pytest.mark.parametrize("flags", [("-O2",), ("-O0",), ("-O2", "-fno-pie", "-no-pie")])
def test_the_quick_reader_finds_what_the_careful_one_does(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    path = compile_cpp(tmp_path, PROGRAM, *flags)
    image = ElfImage.open(path)
    assert_readers_agree(image)

    # gcc's assembler text names each pad: .uleb128 .L5-.LFB0
    source = tmp_path / "again.cpp"
    source.write_text(PROGRAM)
    text = run("g++", *flags[:2], "-S", "-o", "-", str(source))
    table = re.findall(r"\.uleb128 (?:\.LEHB.*|\.LEHE.*|(\.L\d+-\.\w+)|0)$", text, re.MULTILINE)
    assert len(image.landing_pads.vaddrs) == len({name for name in table if name})


def test_the_quick_reader_agrees_in_a_large_library() -> None:
    image = ElfImage.open(Path(pyarrow.__file__).parent / "libarrow_python.so")

    assert_readers_agree(image)
    assert len(image.landing_pads.vaddrs) > 1000


def assert_readers_agree(image: ElfImage) -> None:
    slow = set()
    for frame in image.frames[image.frames["lsda"] != 0]:
        pads, _ = _read(image, int(frame["lsda"]), int(frame["start"]), int(frame["size"]))
        assert pads is not None, struct.pack("<Q", frame["start"])
        slow |= set(pads)
    assert set(image.landing_pads.vaddrs.tolist()) == slow
    assert not image.landing_pads.unknown


@pytest.mark.parametrize(
    "table",
    [
        ".byte 1; .fill 1000000,1,0xff",  # a number that does not end
        ".byte 3; .long 0; .byte 0xff,1; .uleb128 10000; .fill 10000,1,0",
        ".byte 0xff,0xff,1; .uleb128 10000; .fill 500000,1,0",
    ],
)
def test_tables_that_lie_over_each_other_are_read_up_to_a_limit(
    tmp_path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing_pads, "_MOST_BYTES", 1 << 18)
    monkeypatch.setattr(landing_pads, "_MOST_BYTES_SLOW", 1 << 15)
    frame = (
        ".globl f{0}\n.type f{0},@function\nf{0}: .cfi_startproc\n"
        ".cfi_personality 0x9b,personality\n.cfi_lsda 0x1b,table\n"
        "nop\nret\n.cfi_endproc\n.size f{0},.-f{0}\n"
    )
    source = ".text\n" + "".join(frame.format(i) for i in range(45))
    source += f'.data\npersonality: .quad 0\n.section .gcc_except_table,"a"\ntable: {table}\n'
    image = ElfImage.open(assemble(tmp_path, source))
    begin = time.process_time()
    assert image.landing_pads.unknown
    assert time.process_time() - begin < 20.0
