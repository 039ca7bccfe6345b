"""Standard output written by a thread: order, counts, readers that are slow, stopped or gone."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fentry.cli.outlet import Outlet

PIPE_BYTES = 1 << 16  # pipe(7): the capacity of a pipe
LINE = b"x" * 99 + b"\n"


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def read(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            found += os.read(self.reader, count - len(found))
        return found

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    if made.reader >= 0:
        made.close_reader()
    os.close(made.writer)


def test_texts_come_out_in_order_and_events_are_counted(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer)
    outlet.put(b"head\n")
    outlet.put(memoryview(b"one\ntwo\n"), events=2)
    outlet.put(b"three\n", events=1)
    assert outlet.finish() == 3
    assert pipe.read(19) == b"head\none\ntwo\nthree\n"
    assert outlet.is_idle() and outlet.has_room()
    assert (outlet.is_gone(), outlet.problem) == (False, None)


def test_it_takes_a_megabyte_while_nobody_reads_and_then_no_more(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer)
    taken = 0
    while outlet.has_room():
        outlet.put(LINE * 1000, events=1000)
        taken += 1000
    assert 10_000 < taken < 14_000
    assert not outlet.is_idle()
    assert pipe.read(taken * 100) == LINE * taken
    assert outlet.finish() == taken


def test_whoever_gives_up_learns_how_many_events_were_written(pipe: Pipe) -> None:
    signals = iter([0, 0, 0, 1])
    outlet = Outlet(pipe.writer, lambda: next(signals, 1))
    outlet.put(LINE * 10_000, events=10_000)
    written = outlet.finish()
    assert written <= PIPE_BYTES // len(LINE)
    assert outlet.await_room() == outlet.has_room()
    assert outlet.finish() <= PIPE_BYTES // len(LINE)  # once given up, it is not waited for again
    assert not outlet.is_idle()


def test_a_reader_that_went_away_is_noticed_with_and_without_output(pipe: Pipe) -> None:
    silent, busy = Outlet(pipe.writer), Outlet(pipe.writer)
    assert not silent.is_gone()
    pipe.close_reader()
    assert silent.is_gone() and isinstance(silent.problem, BrokenPipeError)
    busy.put(LINE, events=1)
    assert busy.finish() == 0
    assert isinstance(busy.problem, BrokenPipeError)
    assert not busy.has_room() and not busy.await_room()


def test_an_output_that_somebody_made_not_wait_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    outlet = Outlet(pipe.writer)
    outlet.put(LINE * 5000, events=5000)
    assert pipe.read(500_000) == LINE * 5000
    assert outlet.finish() == 5000


def test_a_full_device_is_told() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        outlet = Outlet(full)
        outlet.put(LINE, events=1)
        assert outlet.finish() == 0
        assert outlet.problem is not None and "No space" in str(outlet.problem)
    finally:
        os.close(full)
