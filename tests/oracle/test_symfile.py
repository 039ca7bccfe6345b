"""The symbol file as binutils read it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fentry.formats.symfile import Piece, elf_file, perf_map
from fentry.x86.unwind import Row

PIECES = [
    Piece("fentry_trampoline:record_1", 0x7F0000001000, 0x1A0, (Row(0), Row(1, 7, 16, ((3, 16),)))),
    Piece("fentry_pad:ns::f(int)", 0x7F0000011040, 64, (Row(8), Row(300, 6, 1024))),
    Piece("fentry_pad:part", 0x7F0000011080, 64),
]
SEGMENTS = [(0x7F0000001000, 0x10000), (0x7F0000011000, 0x1000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "code.sym"
    path.write_bytes(elf_file(SEGMENTS, PIECES))
    return path


def readelf(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["readelf", "-W", *map(str, arguments)], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout


def test_symbols_and_sections_are_where_the_code_is(path: Path) -> None:
    symbols = re.findall(
        r"([0-9a-f]{16}) +(\w+) FUNC +GLOBAL DEFAULT +(\d) (.*)", readelf("-s", path)
    )
    assert symbols == [
        ("00007f0000001000", "416", "1", "fentry_trampoline:record_1"),
        ("00007f0000011040", "64", "2", "fentry_pad:ns::f(int)"),
        ("00007f0000011080", "64", "2", "fentry_pad:part"),
    ]
    text = readelf("-S", path)
    assert re.search(r"\.text\.0 +NOBITS +00007f0000001000 000040 010000", text)
    assert re.search(r"\.text\.1 +NOBITS +00007f0000011000 000040 001000", text)


def test_frames_are_those_of_the_rows(path: Path) -> None:
    text = readelf("--debug-dump=frames-interp", path)
    lines = [line.split() for line in text.splitlines() if re.match("[0-9a-f]{16} ", line)]
    assert lines == [
        ["0000000000000000", "rsp+8", "c-8"],
        ["00007f0000001000", "rsp+8", "u", "c-8"],
        ["00007f0000001001", "rsp+16", "c-16", "c-8"],
        ["00007f0000011040", "rsp+8", "c-8"],
        ["00007f0000011048", "rsp+8", "c-8"],
        ["00007f000001116c", "rbp+1024", "c-8"],
    ]


def test_perf_map_has_a_line_a_piece() -> None:
    assert perf_map(PIECES[:2]) == (
        "7f0000001000 1a0 fentry_trampoline:record_1\n7f0000011040 40 fentry_pad:ns::f(int)\n"
    )
