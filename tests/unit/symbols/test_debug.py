"""Names of a stripped file from a debug file, by build-id or link, or compressed in itself."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.compiled import addresses, compile_c, run
from tests.support.machine import need_tool

from fentry.symbols import debug
from fentry.symbols.debug import find_symbols
from fentry.symbols.elf import ElfImage

SOURCE = """
__attribute__((noinline)) static int hidden_one(int x) { return x * 7 + 1; }
__attribute__((noinline)) static int hidden_two(int x) { return hidden_one(x) * 3; }
int main(int argc, char **argv) { return hidden_one(argc) + hidden_two(argc); }
"""


class Parts:
    """A program, what nm says of it, its debug file, and itself stripped."""

    def __init__(self, directory: Path) -> None:
        self.program = compile_c(directory, SOURCE, "-O2", "-g", "-Wl,--build-id")
        self.names = addresses(self.program)
        self.build_id = ElfImage.open(self.program).build_id
        self.debug = directory / "program.debug"
        run("objcopy", "--only-keep-debug", str(self.program), str(self.debug))
        self.stripped = directory / "stripped"
        run("strip", "-o", str(self.stripped), str(self.program))

    def found(self, root: Path | str = "") -> dict[str, int]:
        """The functions of the stripped file: name -> vaddr."""
        image = ElfImage.open(self.stripped)
        path = str(self.stripped)
        image.debug_symbols = find_symbols(image, path.removeprefix(str(root)), str(root))
        functions = image.functions
        return dict(zip(functions.names, functions.rows["vaddr"].tolist(), strict=True))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def is_named(parts: Parts, found: dict[str, int]) -> bool:
    wanted = ("main", "hidden_one", "hidden_two")
    return all(found.get(name) == parts.names[name] for name in wanted)


def test_a_stripped_file_alone_has_no_names(parts: Parts) -> None:
    assert not any("hidden" in name for name in parts.found())


@pytest.mark.parametrize("below_target_root", [True, False])
def test_a_debug_file_is_found_by_build_id(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below_target_root: bool
) -> None:
    root = tmp_path / "root"
    if below_target_root:
        folder = root / "usr/lib/debug/.build-id" / parts.build_id[:2]
    else:
        monkeypatch.setattr(debug, "DEBUG_FOLDER", str(tmp_path / "debug"))
        folder = tmp_path / "debug/.build-id" / parts.build_id[:2]
    folder.mkdir(parents=True)
    shutil.copy(parts.debug, folder / f"{parts.build_id[2:]}.debug")

    assert is_named(parts, parts.found(root if below_target_root else ""))


def test_one_of_another_build_is_not_believed(parts: Parts, tmp_path: Path) -> None:
    other = compile_c(tmp_path, SOURCE, "-O0", "-Wl,--build-id", name="other")
    folder = tmp_path / "root/usr/lib/debug/.build-id" / parts.build_id[:2]
    folder.mkdir(parents=True)
    shutil.copy(other, folder / f"{parts.build_id[2:]}.debug")

    assert not any("hidden" in name for name in parts.found(tmp_path / "root"))


@pytest.mark.parametrize("place", [".", ".debug", "usr"])
def test_a_debug_file_is_found_by_its_link(parts: Parts, tmp_path: Path, place: str) -> None:
    run("objcopy", f"--add-gnu-debuglink={parts.debug}", str(parts.stripped))
    root = tmp_path / "root"
    program = root / "opt/stripped"
    program.parent.mkdir(parents=True)
    shutil.move(parts.stripped, program)
    parts.stripped = program
    folder = root / "usr/lib/debug/opt" if place == "usr" else program.parent / place
    folder.mkdir(parents=True, exist_ok=True)
    shutil.move(parts.debug, folder / "program.debug")

    assert is_named(parts, parts.found(root))
    with (folder / "program.debug").open("ab") as file:
        file.write(b"changed")
    assert not is_named(parts, parts.found(root))  # the checksum is another


def test_compressed_symbols_in_the_file_itself_are_read(parts: Parts, tmp_path: Path) -> None:
    data = tmp_path / "data.xz"
    small = tmp_path / "small"
    run("objcopy", "-S", "--keep-symbol=hidden_one", "--keep-symbol=hidden_two",
        "--keep-symbol=main", str(parts.debug), str(small))  # fmt: skip
    data.write_bytes(lzma.compress(small.read_bytes()))
    run("objcopy", f"--add-section=.gnu_debugdata={data}", str(parts.stripped))

    assert is_named(parts, parts.found())


@pytest.mark.parametrize("data", [b"", b"not xz", lzma.compress(b"not ELF"), None])
def test_damaged_ones_are_passed_over(parts: Parts, tmp_path: Path, data: bytes | None) -> None:
    whole = lzma.compress(parts.debug.read_bytes())
    path = tmp_path / "data.xz"
    path.write_bytes(whole[: len(whole) // 2] if data is None else data)
    run("objcopy", f"--add-section=.gnu_debugdata={path}", str(parts.stripped))
    folder = tmp_path / "root/usr/lib/debug/.build-id" / parts.build_id[:2]
    folder.mkdir(parents=True)
    (folder / f"{parts.build_id[2:]}.debug").write_bytes(b"\x7fELF and no more")

    assert not any("hidden" in name for name in parts.found(tmp_path / "root"))


def test_gdb_finds_the_same(parts: Parts, tmp_path: Path) -> None:
    run("objcopy", f"--add-gnu-debuglink={parts.debug}", str(parts.stripped))
    command = [
        need_tool("gdb"),
        "-batch",
        "-nx",
        "-ex",
        "info address hidden_two",
        str(parts.stripped),
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert f"0x{parts.found()['hidden_two']:x}" in said.replace("0x0000", "0x"), said
    assert os.path.exists(parts.debug)
