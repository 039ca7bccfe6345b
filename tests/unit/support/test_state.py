"""tests/support/state.py: equal when nothing happened, and one line for each thing that did."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.build import build
from tests.support.process import Target, start
from tests.support.state import diff, snapshot, text_hash
from tests.support.unprivileged import Account


@pytest.fixture
def target(account: Account) -> Iterator[Target]:
    with start(build("hot.c", pie=False), "threads=3", account=account) as running:
        running.hold()
        yield running


def test_two_snapshots_of_a_quiet_target_are_equal(target: Target) -> None:
    assert diff(snapshot(target.pid), snapshot(target.pid)) == []


def test_one_changed_byte_of_text_is_seen_and_its_copied_page_too(target: Target) -> None:
    before, hash_before = snapshot(target.pid), text_hash(target.pid)
    start_address = next(
        int(name.split("-")[0], 16)
        for name in before.text
        if str(target.process.args[0]) in name  # type: ignore[index]  # a list
    )
    change_byte(target.pid, start_address + 64)
    after = snapshot(target.pid)

    assert [line.split(":")[0] for line in diff(before, after)] == ["text", "pages"]
    assert text_hash(target.pid) != hash_before

    change_byte(target.pid, start_address + 64)
    (line,) = diff(before, snapshot(target.pid))
    assert "Anonymous=0 kB" in line and "Anonymous=4 kB" in line
    assert text_hash(target.pid) == hash_before


def test_a_new_mapping_descriptor_and_disposition_are_seen() -> None:
    child, to_child, from_child = forked_puppet()
    try:
        before = snapshot(child)
        os.write(to_child, b"x")
        os.read(from_child, 1)
        lines = diff(before, snapshot(child))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    assert any(line.startswith("maps: ") and "/dev/zero" in line for line in lines), lines
    assert any(line.startswith("descriptors: ") and "/dev/null" in line for line in lines)
    assert any(line.startswith("signals: SigCgt") for line in lines)
    assert any("SigBlk" in line for line in lines)


def test_a_new_thread_is_seen_unless_threads_are_ignored() -> None:
    with start(build("storm.c"), "makers=1", "batch=1") as target:
        before = target.tids()
        target.hold()
        state = snapshot(target.pid)
    with start(build("storm.c"), "makers=2", "batch=1") as other:
        other.hold()
        lines = diff(state, snapshot(other.pid))

    assert before
    assert any(line.startswith("threads: ") for line in lines)
    assert not any(line.startswith("threads: ") for line in diff(state, state, ignore=["threads"]))


def test_a_tracer_is_seen(target: Target) -> None:
    before = snapshot(target.pid)

    def seen_while_traced(pid: int) -> str:
        from tests.support.killer import _ptrace

        _ptrace(0x4206, pid, 0, 0)  # PTRACE_SEIZE
        return Path(f"/proc/{pid}/status").read_text()

    from tests.support.unprivileged import accounts

    text = accounts()[0].run(seen_while_traced, target.pid)

    assert "TracerPid:\t0" not in text
    assert diff(before, snapshot(target.pid)) == []


def change_byte(pid: int, address: int) -> None:
    """Flip all bits of one byte of the process."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    try:
        (old,) = os.pread(fd, 1, address)
        os.pwrite(fd, bytes([old ^ 0xFF]), address)
    finally:
        os.close(fd)


def forked_puppet() -> tuple[int, int, int]:
    """A child that waits for a byte, then maps, opens, handles and blocks, answers, and waits."""
    (reading, to_child), (from_child, writing) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"r")  # what happens after a fork is over
        os.read(reading, 1)
        with open("/dev/zero", "rb") as zero:
            kept = mmap.mmap(zero.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ)
        os.open("/dev/null", os.O_RDONLY)
        signal.signal(signal.SIGUSR2, lambda number, frame: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.write(writing, b"y")
        signal.pause()
        del kept
    os.close(reading)
    os.close(writing)
    assert os.read(from_child, 1) == b"r"
    return child, to_child, from_child
