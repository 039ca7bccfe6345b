"""The functions of installed libraries, compared with what readelf prints."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from tests.support.compiled import run
from tests.support.machine import missing, need_tool

from fentry.symbols.elf import ElfImage
from fentry.symbols.functions import FunctionKind

LIBRARIES = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libz.so.1", "ld-linux-x86-64.so.2")
FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64")


def installed(name: str) -> str:
    """The path of a library, for all the usual places."""
    for folder in FOLDERS:
        if os.path.exists(f"{folder}/{name}"):
            return f"{folder}/{name}"
    missing(f"the library {name}")


SYMBOL = re.compile(
    r"^ *\d+: ([0-9a-f]{16}) +(\d+|0x[0-9a-f]+) (FUNC|IFUNC) +(\w+) +\w+ +(\d+) (\S+)", re.MULTILINE
)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_function_symbol_that_readelf_prints_is_known(library: str) -> None:
    path = installed(library)
    expected: dict[int, set[str]] = {}
    sizes: dict[int, set[int]] = {}
    for value, size, kind, _, _, name in SYMBOL.findall(run("readelf", "-W", "-s", path)):
        if int(value, 16):
            suffix = ".resolver" if kind == "IFUNC" else ""
            expected.setdefault(int(value, 16), set()).add(name.partition("@")[0] + suffix)
            sizes.setdefault(int(value, 16), set()).add(int(size, 0))

    functions = ElfImage.open(path).functions
    found = {
        int(row["vaddr"]): {name, *functions.aliases.get(i, [])}
        for i, (row, name) in enumerate(zip(functions.rows, functions.names, strict=True))
        if row["kind"] != FunctionKind.FRAME
    }
    assert found == expected
    for row in functions.rows[functions.rows["kind"] != FunctionKind.FRAME]:
        if sizes[int(row["vaddr"])] != {0}:
            assert int(row["size"]) in sizes[int(row["vaddr"])]


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_frame_that_readelf_decodes_is_a_function_or_inside_one(library: str) -> None:
    path = installed(library)
    # it also follows a link to separate debug information, and fails if that is not installed
    command = [need_tool("readelf"), "--debug-dump=frames", path]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    expected = {
        (int(start, 16), int(end, 16) - int(start, 16))
        for start, end in re.findall(r"FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)", text)
    }

    image = ElfImage.open(path)
    assert {(int(f["start"]), int(f["size"])) for f in image.frames} == {
        pair for pair in expected if pair[1]
    }
    plt = [s for s in image.sections if s.name.startswith(".plt")]
    for start, _ in expected:
        in_plt = any(s.vaddr <= start < s.vaddr + s.size for s in plt)
        assert in_plt or image.functions.containing(start) >= 0


def test_the_build_id_is_the_one_that_readelf_prints() -> None:
    for library in LIBRARIES:
        path = installed(library)
        match = re.search(r"Build ID: ([0-9a-f]+)", run("readelf", "-n", path))
        assert ElfImage.open(path).build_id == (match[1] if match else "")


def test_pointers_to_code_are_those_that_readelf_lists() -> None:
    for library in ("libc.so.6", "libstdc++.so.6"):
        path = installed(library)
        image = ElfImage.open(path)
        text = run("readelf", "-W", "-r", path)
        addends = {
            int(addend, 16)
            for addend in re.findall(r"R_X86_64_(?:RELATIVE|IRELATIVE?)\s+([0-9a-f]+)", text)
        }
        code = [(s.vaddr, s.vaddr + s.file_size) for s in image.executable]
        inside = {a for a in addends if any(low <= a < high for low, high in code)}
        assert inside and inside <= set(image.code_pointers.tolist())
