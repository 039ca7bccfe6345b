"""fentry record of several processes at once, by pids and by name."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.build import build
from tests.support.cli import fentry, fentry_with_signals, folder_of
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.cli.several import named, output_of


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


@pytest.fixture
def pair(account: Account, folder: Path) -> Iterator[list[Target]]:
    """Two processes of a program whose name nothing else has."""
    program = folder / f"pair-{os.getpid()}"
    shutil.copy(build("wander.c"), program)
    program.chmod(0o755)
    with ExitStack() as stack:
        yield [
            stack.enter_context(start(program, "threads=2", "pause_us=200", account=account))
            for _ in range(2)
        ]


def test_all_of_a_name_are_recorded_each_into_its_own_file(
    account: Account, folder: Path, pair: list[Target]
) -> None:
    before = [snapshot(target.pid) for target in pair]
    words = "-n", f"pair-{os.getpid()}", "-F", "f_first", "-d", "100ms", "-o", folder / "t.fentry"
    done = fentry(account, "record", *words)
    after = [snapshot(target.pid) for target in pair]
    assert done.code == 0, done.err
    assert [diff(*both) for both in zip(before, after, strict=True)] == [[], []]
    assert sorted(path.name for path in folder.glob("*.fentry")) == sorted(
        f"t.{target.pid}.fentry" for target in pair
    )
    for target in pair:
        shown = fentry(account, "report", "--counts", "-i", folder / f"t.{target.pid}.fentry")
        assert shown.out.splitlines()[1].split()[2] == "f_first"
        assert f"; next: fentry report -i {folder}/t.{target.pid}.fentry" in done.err
        assert target.stop().is_well


def test_one_that_is_gone_does_not_keep_the_others_from_being_recorded(
    account: Account, folder: Path, pair: list[Target]
) -> None:
    gone, there = pair
    gone.process.kill()
    gone.process.wait()
    words = "-F", "f_first", "-d", "50ms", "-o", folder / "t"
    done = fentry(account, "record", "-p", gone.pid, "-p", there.pid, *words)
    assert done.code == 4
    assert f"fentry: {gone.pid} " in done.err and f"no process {gone.pid}" in done.err
    assert not (folder / f"t.{gone.pid}").exists()
    assert (folder / f"t.{there.pid}").stat().st_size > 0
    assert there.stop().is_well


def test_a_signal_ends_all(account: Account, folder: Path, pair: list[Target]) -> None:
    before = [snapshot(target.pid) for target in pair]
    words = "-p", pair[0].pid, "-p", pair[1].pid, "-F", "f_first", "-o", folder / "t"
    done = fentry_with_signals(
        account, pair[1].pid, [signal.SIGTERM], "record", *words, after="fentry-ring"
    )
    assert done.code == 0, done.err
    assert done.err.count("; terminated; next: ") == 2
    assert [diff(one, snapshot(t.pid)) for one, t in zip(before, pair, strict=True)] == [[], []]
    assert all(target.stop().is_well for target in pair)


def test_what_goes_with_one_process_only_is_refused(account: Account, folder: Path) -> None:
    several = "record", "-p", os.getpid(), "-p", 1, "-o", folder / "t"
    for more, what in (
        (("--tid", 1), "--tid and --not-tid are for one process"),
        (("--adopt",), "--adopt needs one -p PID"),
        (("--", "true"), "both were given"),
    ):
        done = fentry(account, *several, *more)
        assert done.code == 2 and what in done.err
    nobody = fentry(account, "record", "-n", "no-such-name-*")
    assert nobody.code == 2 and "no process is called 'no-such-name-*'" in nobody.err


def test_names_are_those_of_processes_and_of_their_files(pair: list[Target]) -> None:
    pids = sorted(target.pid for target in pair)
    assert named(f"pair-{os.getpid()}") == pids
    assert named(f"pai[r]-{os.getpid()}*") == pids
    assert os.getpid() not in named("*") and os.getppid() not in named("*")


def test_each_output_has_the_pid_before_its_suffix() -> None:
    assert output_of("trace.fentry", 12) == "trace.12.fentry"
    assert output_of("/a.b/trace", 12) == "/a.b/trace.12"
