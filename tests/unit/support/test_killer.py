"""tests/support/killer.py: every point is reached once, and nothing after the kill happens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support import killer
from tests.support.build import build
from tests.support.killer import ControllerFailed, Death, count, kill_after, points
from tests.support.process import start
from tests.support.syscalls import name_of
from tests.support.unprivileged import Account

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17


def write_three_files(directory: str) -> None:
    """Twelve calls and no other: open, write, write, close for each of three files."""
    killer.start_counting()
    for name in ("a", "b", "c"):
        fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, b"1")
        os.write(fd, b"2")
        os.close(fd)
    killer.stop_counting()


def test_points_kill_after_each_call_and_nothing_after_it_happens(
    tmp_path: Path, account: Account
) -> None:
    seen = []
    for n in range(1, 13):
        directory = tmp_path / str(n)
        directory.mkdir()
        tmp_path.chmod(0o755)
        directory.chmod(0o777)
        open_way(directory)
        death = kill_after(n, write_three_files, str(directory), account=account, marked=True)
        assert death is not None and death.n == n
        seen.append((name_of(death.number), contents(directory)))

    assert [name for name, _ in seen] == ["openat", "write", "write", "close"] * 3
    assert [text for _, text in seen] == [
        {"a": ""}, {"a": "1"}, {"a": "12"}, {"a": "12"},
        {"a": "12", "b": ""}, {"a": "12", "b": "1"}, {"a": "12", "b": "12"},
        {"a": "12", "b": "12"},
        {"a": "12", "b": "12", "c": ""}, {"a": "12", "b": "12", "c": "1"},
        {"a": "12", "b": "12", "c": "12"}, {"a": "12", "b": "12", "c": "12"},
    ]  # fmt: skip


def test_points_end_after_one_run_that_nobody_disturbed(tmp_path: Path) -> None:
    deaths = list(points(write_three_files, str(tmp_path), marked=True))

    assert [death.n for death in deaths] == list(range(1, 13))
    assert contents(tmp_path) == {"a": "12", "b": "12", "c": "12"}
    assert count(write_three_files, str(tmp_path), marked=True) == 12


def test_a_stride_visits_every_nth_call(tmp_path: Path) -> None:
    deaths = points(write_three_files, str(tmp_path), marked=True, first=2, stride=5)

    assert [death.n for death in deaths] == [2, 7, 12]


def test_without_marks_all_calls_of_the_controller_count() -> None:
    def controller() -> None:
        os.getppid()
        os.getppid()

    assert count(controller) == 2


def test_a_death_says_what_was_called_with_what_result() -> None:
    death = kill_after(1, lambda: os.getpriority(os.PRIO_PROCESS, 0))

    assert isinstance(death, Death)
    assert str(death).startswith("killed after call 1: getpriority(0x0, 0x0, ")
    assert death.result == 20 - os.getpriority(os.PRIO_PROCESS, 0)


def test_a_controller_that_raises_is_told() -> None:
    def controller() -> None:
        raise ValueError("by itself")

    with pytest.raises(ControllerFailed, match="after 0 system calls"):
        kill_after(1000, controller)


def test_a_killed_controller_that_traced_a_target_lets_it_go(account: Account) -> None:
    def controller(pid: int) -> None:
        for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
            killer._ptrace(request, pid, 0, 0)
        os.waitpid(pid, 0)
        killer._ptrace(PTRACE_DETACH, pid, 0, 0)

    with start(build("hot.c"), "threads=2", "pause_us=300", account=account) as target:
        deaths = []
        for death in points(controller, target.pid, account=account):
            deaths.append(name_of(death.number))
            target.await_calls("f_plain", more=2)
        assert target.stop().is_well

    assert deaths == ["ptrace", "ptrace", "wait4", "ptrace"]


def open_way(directory: Path) -> None:
    """Let every user reach a directory of pytest's, whose parents are private."""
    for parent in directory.parents:
        if parent.stat().st_uid == os.getuid() and parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(directory.iterdir())}
