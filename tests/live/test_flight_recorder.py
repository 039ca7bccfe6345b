"""fentry arm, dump and report --core: the last calls of a process, read while it lives or after its
death."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.build import build
from tests.support.cli import fentry, folder_of
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, Completed

from fentry.errors import FentryError
from fentry.formats.tracefile import TraceReader
from fentry.process.core_file import CoreFile
from fentry.snapshot import write_snapshot
from fentry.snapshot.core import CoreSource

LINE = re.compile(r"(\d+) events, (\d+) older ones forgotten")
SMALL = "-m", "64K"  # 2048 records of 24 bytes


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


def accounted(done: Completed) -> int:
    """Calls that a dump tells of: written, and forgotten before."""
    assert done.code == 0, done.err
    found = LINE.search(done.err)
    assert found is not None, done.err
    return int(found[1]) + int(found[2])


def made(target: Target, more: int = 5000) -> Counter[str]:
    """Calls that a target that was held makes until it is held again."""
    before = target.counters()
    target.go()
    target.await_calls("f_first", more)
    return target.hold() - before


def calls_of(account: Account, trace: Path) -> dict[str, int]:
    lines = fentry(account, "report", "--counts", "-i", trace).out.splitlines()[1:]
    return {line.split()[2]: int(line.split()[0]) for line in lines}


def test_every_call_since_arming_is_written_or_counted_as_forgotten(
    account: Account, folder: Path
) -> None:
    trace = folder / "trace"
    with start(build("wander.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)
        armed = fentry(account, "arm", "-p", target.pid, "-F", "f_*", *SMALL)
        assert armed.code == 0, armed.err
        assert f"{target.pid} is armed: " in armed.err
        assert "the last 2048 calls of each CPU" in armed.err
        calls = made(target)
        first = fentry(account, "dump", "-p", target.pid, "-o", trace)
        again = fentry(account, "dump", "-p", target.pid, "-o", trace)
        calls += made(target)
        last = fentry(account, "dump", "-p", target.pid, "-o", trace, "--disarm")
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert accounted(first) == accounted(again) < accounted(last) == calls.total()
    assert "; still armed; " in again.err and "; disarmed; " in last.err
    assert sum(calls_of(account, trace).values()) == int(LINE.search(last.err)[1])  # type: ignore[index]
    with TraceReader(trace) as reader:
        assert reader.damage == []
        assert {comm[:7] for _, comm, _ in reader.tasks} == {b"wander-"}


def test_others_record_and_count_beside_it(account: Account, folder: Path) -> None:
    with start(build("wander.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)
        assert fentry(account, "arm", "-p", target.pid, "-F", "f_first").code == 0
        target.go()
        target.await_calls("f_first", 100)
        counted = fentry(account, "stat", "-p", target.pid, "-F", "f_first", "-d", "50ms")
        words = "-p", target.pid, "-F", "f_second", "-d", "50ms", "-o", folder / "other"
        recorded = fentry(account, "record", *words)
        shown = fentry(account, "status", "-p", target.pid).out
        target.await_calls("f_first", 100)
        made = target.hold()
        dumped = fentry(account, "dump", "-p", target.pid, "-o", folder / "t", "--disarm")
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert counted.code == recorded.code == 0, counted.err + recorded.err
    assert "f_first" in counted.out and set(calls_of(account, folder / "other")) == {"f_second"}
    assert "record PERMANENT f_first (1 functions" in shown
    assert accounted(dumped) == made["f_first"]
    assert set(calls_of(account, folder / "t")) == {"f_first"}


def test_what_cannot_be_is_refused_and_touches_nothing(account: Account, folder: Path) -> None:
    with start(build("wander.c"), account=account) as target:
        before = snapshot(target.pid)
        idle = fentry(account, "dump", "-p", target.pid, "-o", folder / "t")
        wrong = fentry(account, "arm", "-p", target.pid, "-F", "f_frist")
        assert diff(before, snapshot(target.pid)) == []
        assert fentry(account, "arm", "-p", target.pid, "-F", "f_first").code == 0
        armed = snapshot(target.pid)
        twice = fentry(account, "arm", "-p", target.pid, "-F", "f_second")
        plain = fentry(account, "detach", "-p", target.pid)
        assert diff(armed, snapshot(target.pid)) == []
        forced = fentry(account, "detach", "--force", "-p", target.pid)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    assert (idle.code, wrong.code, twice.code, plain.code, forced.code) == (2, 5, 6, 6, 0)
    assert f"process {target.pid} is not armed" in idle.err
    assert f"try: fentry arm -p {target.pid}" in idle.err
    assert "it records f_first" in twice.err
    assert not (folder / "t").exists()


def without_names(report: str) -> list[str]:
    """Thread, CPU and function of its events, sorted: a core file has no names of threads but the
    first, and by its clock, of fewer moments, events of two CPUs may be the other way round."""
    lines = [line for line in report.splitlines() if line[0] != "#"]
    return sorted(re.sub(r"^.*-(\d+) +(\[\d+\]).*: ", r"\1 \2 ", line) for line in lines)


def gcore(account: Account, pid: int, folder: Path) -> Path:
    """A core file of a process that goes on, made by gdb."""

    def run() -> None:
        command = ["gcore", "-o", str(folder / "core"), str(pid)]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    account.run(run)
    return folder / f"core.{pid}"


def test_a_core_file_has_what_a_dump_has(account: Account, folder: Path) -> None:
    with start(build("wander.c"), account=account, hold=True) as target:
        assert fentry(account, "arm", "-p", target.pid, "-F", "f_*", *SMALL).code == 0
        calls = made(target)
        dumped = fentry(account, "dump", "-p", target.pid, "-o", folder / "trace")
        core = gcore(account, target.pid, folder)
        tids = target.tids()
        maps = Path(f"/proc/{target.pid}/maps").read_text()
        assert fentry(account, "detach", "--force", "-p", target.pid).code == 0
        target.go()
        assert target.stop().is_well
    # The process is gone: the core file is all that is left.
    live = fentry(account, "report", "-i", folder / "trace").out
    dead = fentry(account, "report", "--core", core)
    assert without_names(dead.out) == without_names(live)
    assert f"events of process {target.pid} in {core}" in dead.err
    assert accounted(dumped) == calls.total()
    with CoreFile(str(core)) as found:
        assert sorted(found.tids) == tids
        assert (found.pid, found.comm[:7]) == (target.pid, b"wander-")
        assert {f"{one.start:x}-{one.end:x}" for one in found.files} >= {
            line.split()[0] for line in maps.splitlines() if line.endswith("/libc.so.6")
        }
    kept = fentry(account, "dump", "--core", core, "-o", folder / "kept")
    assert kept.code == 0, kept.err
    assert calls_of(account, folder / "kept") == calls_of(account, folder / "trace")


def test_a_damaged_core_file_is_read_as_far_as_it_goes_or_refused(
    account: Account, folder: Path, tmp_path: Path
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    with start(build("wander.c"), account=account, hold=True) as target:
        unarmed = gcore(account, target.pid, folder)
        unarmed.rename(whole)
        with CoreFile(str(whole)) as core, pytest.raises(FentryError, match="nothing of fentry"):
            CoreSource(core)
        assert fentry(account, "arm", "-p", target.pid, "-F", "f_*", *SMALL).code == 0
        made(target)
        content = gcore(account, target.pid, folder).read_bytes()
        assert fentry(account, "detach", "--force", "-p", target.pid).code == 0
        target.go()
        assert target.stop().is_well
    for size in [0, 1, 63, 64, 100, *range(200, len(content), len(content) // 40)]:
        part.write_bytes(content[:size])
        try:
            with CoreFile(str(part)) as core:
                assert write_snapshot(CoreSource(core), tmp_path / f"trace{size}").events >= 0
        except FentryError as error:
            assert str(part) in error.what or "at 0x" in error.what, error
    chance = random.Random(7)
    starts = [0, content.index(b"FENTRYRG"), content.index(b"FENTRING")]  # headers, registry, ring
    for number in range(120):
        spoilt = bytearray(content)
        for _ in range(chance.randrange(1, 4)):
            at = starts[number % 3] + chance.randrange(0, 8192)
            spoilt[at] = chance.randrange(256)
        part.write_bytes(spoilt)
        try:
            with CoreFile(str(part)) as core:
                write_snapshot(CoreSource(core), tmp_path / "spoilt")
        except FentryError as error:
            assert error.what
    for name in (Path("/bin/true"), Path("/etc/passwd"), tmp_path, tmp_path / "missing"):
        with pytest.raises(FentryError, match=r"is no core file|cannot read"):
            CoreFile(str(name))
