"""tests/support/build.py: once per content, parallel runs safe, readable by all."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support import build as building
from tests.support.build import TARGETS, BuildFailed, build
from tests.support.machine import need_tool

SOURCES = sorted(
    path.name
    for path in TARGETS.iterdir()
    if path.suffix in {".c", ".cpp", ".S"} and "build:" in path.read_text()
)


@pytest.mark.parametrize("source", SOURCES)
def test_every_target_builds_without_a_warning(source: str) -> None:
    need_tool("gcc")
    need_tool("g++")
    if source == "io_uring.c" and not Path("/usr/include/liburing.h").exists():
        pytest.skip("this machine lacks liburing-dev")

    assert build(source).stat().st_mode & 0o777 == 0o755


def test_a_second_build_runs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build("overflow.c")
    monkeypatch.setattr(building, "run_compiler", lambda command: pytest.fail("compiled again"))

    assert build("overflow.c") == first


def test_another_flag_makes_another_file() -> None:
    assert build("overflow.c", flags=["-O1"]) != build("overflow.c", flags=["-O3"])


def test_pie_static_and_stripped_are_what_readelf_sees() -> None:
    def header(path: Path) -> str:
        return subprocess.run(["readelf", "-hlW", path], capture_output=True, text=True).stdout

    assert "EXEC (Executable file)" in header(build("overflow.c", pie=False))
    assert "DYN (Position-Independent" in header(build("overflow.c", pie=True))
    assert "INTERP" not in header(build("overflow.c", static=True))
    stripped = build("overflow.c", stripped=True)
    symbols = subprocess.run(["readelf", "-sW", stripped], capture_output=True, text=True).stdout
    assert ".symtab" not in symbols


def test_musl_builds_the_hot_target() -> None:
    need_tool("musl-gcc")
    path = build("hot.c", compiler="musl-gcc", static=True)

    assert "GLIBC" not in subprocess.run(["strings", path], capture_output=True, text=True).stdout


def test_parallel_builds_of_one_target_compile_it_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = []
    compile_really = building.run_compiler

    def counted(command: list[str]) -> None:
        commands.append(command)
        compile_really(command)

    monkeypatch.setattr(building, "run_compiler", counted)
    monkeypatch.setattr(building, "target_directory", lambda: tmp_path)

    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: build("libdso.c"), range(4)))

    assert len(paths) == 1
    assert len(commands) == 1


def test_a_source_with_a_fault_shows_the_words_of_the_compiler() -> None:
    with pytest.raises(BuildFailed, match="no_such_option"):
        build("overflow.c", flags=["-no_such_option"])


def test_a_source_without_a_build_line_is_refused() -> None:
    with pytest.raises(BuildFailed, match=r"check\.S has no line"):
        build("check.S")
