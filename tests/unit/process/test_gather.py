"""Pieces of memory by one system call, and evidence: of this process itself."""

from __future__ import annotations

import ctypes
import os
import subprocess

import pytest

from fentry.process.gather import MOST_PIECES, Evidence, Gather
from fentry.process.memory import Memory


def buffer(text: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(text, len(text))


def test_pieces_come_one_behind_the_other() -> None:
    one, two = buffer(b"trampoline"), buffer(b"pad")
    places = [
        (ctypes.addressof(two), 3),
        (ctypes.addressof(one) + 2, 4),
        (ctypes.addressof(two), 1),
    ]
    found = Gather(os.getpid(), places).read()
    assert found is not None and found.tobytes() == b"padampop"


def test_a_piece_that_is_not_mapped_is_no_answer() -> None:
    one = buffer(b"trampoline")
    assert Gather(os.getpid(), [(ctypes.addressof(one), 4), (0x1000, 8)]).read() is None


def test_more_pieces_than_one_call_takes_are_refused() -> None:
    one = ctypes.addressof(buffer(b"x"))
    with pytest.raises(ValueError, match="more than one system call"):
        Gather(os.getpid(), [(one, 1)] * (MOST_PIECES + 1))


def test_evidence_holds_until_one_byte_of_it_is_another() -> None:
    one, two = buffer(b"call"), buffer(b"jump")
    evidence = Evidence(
        os.getpid(), [(ctypes.addressof(one), b"call"), (ctypes.addressof(two) + 1, b"um")]
    )
    assert not evidence.held
    assert evidence.holds() and evidence.held
    two[3] = b"P"  # beside what it is about
    assert evidence.holds()
    two[2] = b"M"
    assert not evidence.holds() and not evidence.held


@pytest.mark.parametrize("pieces", [None, []])
def test_without_pieces_nothing_is_known(pieces: list[tuple[int, bytes]] | None) -> None:
    assert not Evidence(os.getpid(), pieces).holds()


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    one = buffer(b"call")
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    assert not Evidence(child.pid, [(ctypes.addressof(one), b"call")]).holds()


def test_joined_pieces_are_cut_short_where_nothing_is_mapped() -> None:
    one = buffer(b"trampoline")
    memory = Memory(os.getpid())
    text, sizes = memory.read_joined(
        [(ctypes.addressof(one), 5), (0x1000, 8), (ctypes.addressof(one) + 5, 5)]
    )
    memory.close()
    assert text.tobytes() == b"trampoline"
    assert sizes == [5, 0, 5]
