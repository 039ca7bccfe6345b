"""Core files whose headers are not what they should be; whole ones are in test_flight_recorder."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from fentry.errors import BadInput
from fentry.process.core_file import CoreFile

IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")


def header(*, kind: int = 4, program_bytes: int = 56, programs: int = 1) -> bytes:
    """An ELF header of a core: one program header at 64, sections at 128."""
    return IDENT + struct.pack(
        "<HHIQQQIHHHHHH", kind, 62, 1, 0, 64, 128, 0, 64, program_bytes, programs, 64, 1, 0
    )


def test_memory_is_read_as_far_as_the_file_has_it(tmp_path: Path) -> None:
    path = tmp_path / "core"
    load = struct.pack("<IIQQQQQQ", 1, 4, 128, 0x400000, 0, 16, 4096, 4096)
    path.write_bytes(header() + load + bytes(8) + b"0123456789")

    with CoreFile(str(path)) as core:
        assert core.read_some(0x400002, 100) == b"23456789"
        assert core.read_some(0x3FFFFF, 1) == b""
        assert core.offset_of(0x400002, 4) == 130
        assert core.offset_of(0x400002, 40) is None


@pytest.mark.parametrize("size", [0, 1, 55, 64])
def test_headers_of_another_size_are_damage(tmp_path: Path, size: int) -> None:
    path = tmp_path / "core"
    many = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0xFFFF_FFFF, 0, 0)
    path.write_bytes(header(program_bytes=size, programs=0xFFFF) + bytes(64) + many)

    with pytest.raises(BadInput, match="is damaged") as refused:
        CoreFile(str(path))
    assert refused.value.cause == f"program headers of {size} bytes"


def test_a_program_is_no_core(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(header(kind=2) + bytes(64))

    with pytest.raises(BadInput, match="is no core file"):
        CoreFile(str(path))
