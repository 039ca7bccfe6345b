"""Names of threads over several files: said again as long as they may be needed, then forgotten."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fentry.formats.tasks_seen import TasksSeen

PID = os.getpid()


@contextmanager
def thread(name: str) -> Iterator[int]:
    """The tid of a thread of this process with this comm, which ends on leaving."""
    ready, leave = threading.Event(), threading.Event()
    tids: list[int] = []

    def run() -> None:
        tids.append(threading.get_native_id())
        Path(f"/proc/self/task/{tids[0]}/comm").write_text(name)
        ready.set()
        leave.wait()

    one = threading.Thread(target=run)
    one.start()
    ready.wait()
    try:
        yield tids[0]
    finally:
        leave.set()
        one.join()
        while os.path.exists(f"/proc/self/task/{tids[0]}"):  # the kernel takes a moment more
            os.sched_yield()


def test_a_thread_is_told_once_and_again_when_its_name_changes() -> None:
    tasks = TasksSeen(by_records=False)
    with thread("first") as tid:
        assert (tid, b"first") in [(task.tid, task.comm) for task in tasks.look(PID)]
        assert tasks.look(PID) == []
        Path(f"/proc/self/task/{tid}/comm").write_text("second")
        assert [(task.tid, task.comm) for task in tasks.look_at_all([PID])] == [(tid, b"second")]
        assert (tid, b"second") in [(task.tid, task.comm) for task in tasks.again()]


def test_an_ended_thread_is_said_again_until_its_records_must_have_been_read() -> None:
    tasks = TasksSeen(by_records=False)
    with thread("short") as tid:
        tasks.look_at_all([PID])
    tasks.look_at_all([PID])
    for moves in range(2):
        assert tid in [task.tid for task in tasks.again()], moves
        tasks.moved()
    known = [task.tid for task in tasks.again()]
    assert (tid in known, PID in known) == (False, True)


def test_threads_of_records_that_nobody_saw_are_named_once_in_each_file() -> None:
    tasks = TasksSeen(by_records=True)
    tasks.look_at_all([PID])
    words = np.array([4_000_001 | 5 << 22, PID, 4_000_001], np.uint32)
    tasks.note(words)
    assert [task.tid for task in tasks.unseen()] == [4_000_001]
    tasks.again()
    assert tasks.unseen() == []
    tasks.note(words)
    assert [task.tid for task in tasks.unseen()] == [4_000_001]
