"""What an ELF file says about its functions, on files made by gcc and binutils."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.support.compiled import SHARED, addresses, assemble, compile_c, run

from fentry.errors import BadInput
from fentry.symbols.elf import ElfImage
from fentry.symbols.functions import FunctionKind, Functions

PROGRAM = """
__attribute__((noinline)) static int local_one(int x) { return x * 3 + 1; }
__attribute__((noinline)) int second(int x) { return local_one(x) + 2; }
int second_alias(int x) __attribute__((alias("second")));
int main(int argc, char **argv) { return second(argc) + second_alias(argc); }
"""


def by_name(functions: Functions) -> dict[str, tuple[int, int]]:
    rows = functions.rows
    return {
        name: (int(rows["vaddr"][i]), int(rows["size"][i]))
        for i, name in enumerate(functions.names)
    }


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(
        tmp_path_factory.mktemp("elf"), PROGRAM, "-O2", "-fno-ipa-icf", "-Wl,--build-id"
    )


def test_local_and_global_functions_lie_where_nm_says(program: Path) -> None:
    found = by_name(ElfImage.open(program).functions)

    expected = addresses(program)
    assert {name: found[name][0] for name in ("local_one", "second", "main", "_start")} == {
        name: expected[name] for name in ("local_one", "second", "main", "_start")
    }


def test_the_build_id_is_the_one_that_readelf_prints(program: Path) -> None:
    match = re.search(r"Build ID: ([0-9a-f]+)", run("readelf", "-n", str(program)))

    assert match is not None
    assert ElfImage.open(program).build_id == match[1]


def test_a_file_without_a_build_id_has_an_empty_one(tmp_path: Path) -> None:
    path = assemble(tmp_path, ".text\nnop\n", "-shared", "-nostdlib", "-Wl,--build-id=none")

    assert ElfImage.open(path).build_id == ""


def test_an_alias_shares_the_row_and_the_shorter_name_is_preferred(program: Path) -> None:
    functions = ElfImage.open(program).functions
    row = functions.names.index("second")

    assert functions.aliases[row] == ["second_alias"]
    assert "second_alias" not in functions.names


ALIASES = """
.text
.globl zz, bb, aa_long
.weak ab
.type zz_local,@function
.type zz,@function
.type bb,@function
.type ab,@function
.type aa_long,@function
a: zz_local: zz: bb: ab: aa_long: nop; nop; nop; nop; nop; nop; ret
.size zz_local, 9
.size zz, 7
.size bb, 7
.size ab, 7
.size aa_long, 0
"""


def test_of_many_names_a_global_short_alphabetical_one_is_chosen(tmp_path: Path) -> None:
    functions = ElfImage.open(assemble(tmp_path, ALIASES)).functions

    assert functions.names == ["ab"]
    assert functions.aliases[0] == ["bb", "zz", "aa_long", "zz_local"]


def test_of_differing_sizes_the_smallest_that_is_given_counts(tmp_path: Path) -> None:
    functions = ElfImage.open(assemble(tmp_path, ALIASES)).functions

    assert functions.rows["size"].tolist() == [7]
    assert functions.rows["size_known"].tolist() == [True]


def test_a_symbol_version_is_no_part_of_the_name(tmp_path: Path) -> None:
    script = tmp_path / "versions"
    script.write_text("V1 { old; }; V2 { memcpy2; };\n")
    source = """
.text
.globl f_new, f_old
.type f_new,@function
.type f_old,@function
f_old: ret
.size f_old, 1
f_new: ret
.size f_new, 1
.symver f_old, memcpy2@V1
.symver f_new, memcpy2@@V2
"""
    path = assemble(tmp_path, source, *SHARED, f"-Wl,--version-script={script}")

    functions = ElfImage.open(path).functions
    every = set(functions.names).union(*functions.aliases.values())
    assert "memcpy2" in every
    assert not [name for name in every if "@" in name]


SIZES = """
.text
.type unsized,@function
unsized: nop; nop; nop
.type sized,@function
sized: nop; ret
.size sized, 2
.type framed,@function
framed: .cfi_startproc
nop; nop; nop; ret
.cfi_endproc
.type last,@function
last: nop; nop; ret
"""


def test_a_symbol_without_size_ends_at_the_next_and_is_marked(tmp_path: Path) -> None:
    functions = ElfImage.open(assemble(tmp_path, SIZES)).functions

    known = dict(zip(functions.names, functions.rows["size_known"].tolist(), strict=True))
    sizes = {name: size for name, (_, size) in by_name(functions).items()}
    assert sizes == {"unsized": 3, "sized": 2, "framed": 4, "last": 3}
    assert known == {"unsized": False, "sized": True, "framed": True, "last": False}


def test_functions_of_a_stripped_file_are_known_by_their_frames(program: Path) -> None:
    stripped = program.with_name("stripped")
    subprocess.run(["strip", "-o", str(stripped), str(program)], check=True)
    image = ElfImage.open(stripped)

    expected = addresses(program)
    found = by_name(image.functions)
    for name in ("local_one", "second", "main"):
        assert found[f"stripped+0x{expected[name]:x}"][0] == expected[name]
    kinds = set(image.functions.rows["kind"].tolist())
    assert kinds == {FunctionKind.FRAME}


def test_frames_agree_with_the_ones_that_readelf_decodes(program: Path) -> None:
    frames = ElfImage.open(program).frames

    text = run("readelf", "--debug-dump=frames", str(program))
    expected = {
        (int(match[1], 16), int(match[2], 16) - int(match[1], 16))
        for match in re.finditer(r"FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)", text)
    }
    assert {(int(f["start"]), int(f["size"])) for f in frames} == expected


def test_frames_are_found_without_the_search_table(program: Path) -> None:
    bare = program.with_name("bare")
    subprocess.run(
        ["objcopy", "--remove-section=.eh_frame_hdr", str(program), str(bare)], check=True
    )
    raw = bytearray(bare.read_bytes())
    at = raw.find((0x6474E550).to_bytes(4, "little"))
    raw[at : at + 4] = bytes(4)  # PT_GNU_EH_FRAME -> PT_NULL

    assert ElfImage(bytes(raw)).frames.tolist() == ElfImage.open(program).frames.tolist()


def test_an_ifunc_is_marked_as_such(tmp_path: Path) -> None:
    source = """
static int impl(void) { return 1; }
static int (*choose(void))(void) { return impl; }
int chosen(void) __attribute__((ifunc("choose")));
int main(void) { return chosen(); }
"""
    functions = ElfImage.open(compile_c(tmp_path, source, "-O2")).functions

    row = next(
        i
        for i, name in enumerate(functions.names)
        if "chosen.resolver" in (name, *functions.aliases.get(i, []))
    )
    assert functions.names[row] == "choose"
    assert functions.ifuncs == {int(functions.rows["vaddr"][row]): ["chosen"]}
    assert functions.rows["kind"][row] == FunctionKind.IFUNC


def test_pointers_to_code_come_from_relocations(tmp_path: Path) -> None:
    source = """
int f(int x) { return x; }
int g(int x) { return x + 1; }
int (*const table[])(int) = {f, g};
int main(int argc, char **argv) { return table[argc & 1](argc); }
"""
    for flags in (["-fPIE", "-pie"], ["-fno-pie", "-no-pie"], ["-static"]):
        path = compile_c(tmp_path, source, "-O0", *flags)
        found = ElfImage.open(path).code_pointers.tolist()
        expected = addresses(path)
        assert {expected["f"], expected["g"]} <= set(found), flags
        assert found == sorted(set(found))


def test_packed_relative_relocations_are_read(tmp_path: Path) -> None:
    cells = "\n".join(f".quad f+{i % 3}" for i in range(200))
    source = f".text\nf: nop; nop; nop; ret\n.data\n.balign 8\n{cells}\n"
    path = assemble(tmp_path, source, *SHARED, "-Wl,-z,pack-relative-relocs")
    assert ".relr.dyn" in run("readelf", "-SW", str(path))

    start = addresses(path)["f"]
    assert set(ElfImage.open(path).code_pointers.tolist()) >= {start, start + 1, start + 2}


def test_sections_that_the_linker_moved_keep_their_addresses(tmp_path: Path) -> None:
    path = assemble(
        tmp_path,
        ".text\n.globl f\n.type f,@function\nf: ret\n.size f, 1\n",
        *SHARED,
        "-Wl,-Ttext-segment=0x40000000",
    )
    image = ElfImage.open(path)

    assert image.low == 0x4000_0000
    assert by_name(image.functions)["f"] == (addresses(path)["f"], 1)
    assert image.read(addresses(path)["f"], 1) == b"\xc3"


def test_a_file_without_section_headers_still_has_its_dynamic_symbols(tmp_path: Path) -> None:
    source = ".text\n.globl f, g\n.type f,@function\n.type g,@function\n"
    source += "f: nop; ret\n.size f, 2\ng: nop; nop; ret\n.size g, 3\n"
    for style in ("gnu", "sysv"):
        path = assemble(tmp_path, source, *SHARED, f"-Wl,--hash-style={style}")
        expected = addresses(path)
        raw = bytearray(path.read_bytes())
        raw[40:48] = bytes(8)  # e_shoff
        raw[60:64] = bytes(4)  # e_shnum, e_shstrndx

        found = by_name(ElfImage(bytes(raw)).functions)

        assert found == {"f": (expected["f"], 2), "g": (expected["g"], 3)}, style


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not an ELF file"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fELF", "64-bit"),
        (b"\x7fELF\x01\x01\x01" + bytes(60), "32-bit"),
        (b"\x7fELF\x02\x02\x01" + bytes(60), "little-endian"),
        (b"\x7fELF\x02\x01\x01" + bytes(20), "ELF header"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00" + bytes(60), "machine 183"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x01\x00\x3e\x00" + bytes(60), "e_type is 1"),
    ],
)
def test_what_is_no_x86_64_image_is_refused_with_the_reason(content: bytes, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        ElfImage(content)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    with pytest.raises(BadInput, match="it is empty"):
        ElfImage.open(tmp_path / "empty")
