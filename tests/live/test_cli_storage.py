"""How a recording is stored: compressed, rotated, limited; every call is in a file or counted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.build import build
from tests.support.cli import compile_c, fentry, folder_of
from tests.support.process import start
from tests.support.unprivileged import Account, Completed

CALLS = 900_000  # 21.6 MB of records

PROGRAM = r"""
#include <pthread.h>
__attribute__((noipa)) long f_counted(long x) { return x * 3 + 1; }
static void *work(void *made)
{
    for (long i = 0; i < 300000; i++, ++*(long *)made)
        f_counted(i);
    return 0;
}
int main(void)
{
    static long made[3];
    static pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], 0, work, &made[i]);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], 0);
    return made[0] + made[1] + made[2] != 900000;
}
"""

FINAL = re.compile(r"^(\d+) events, (\d+) dropped(?:, (\d+) not written)?[;,]", re.MULTILINE)
SHOWN = re.compile(r"^(\d+) of (\d+) events \(clock tsc\), (\d+) dropped, no damage$", re.MULTILINE)


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


def record(account: Account, folder: Path, *words: str) -> tuple[int, int, int, Completed]:
    """(events, dropped, not written) of a recording of PROGRAM with these options."""
    program = compile_c(folder, PROGRAM, "-pthread")
    done = fentry(account, "record", "-F", "f_counted", "-o", folder / "t", *words, "--", program)
    assert done.code == 0, done.err
    match = FINAL.search(done.err)
    assert match is not None, done.err
    events, dropped, unwritten = (int(word or 0) for word in match.groups())
    return events, dropped, unwritten, done


def shown(account: Account, *words: object) -> tuple[int, int]:
    """(events, dropped) that a report of a whole trace states; all of them are of f_counted."""
    done = fentry(account, "report", "--counts", "--json", *words)
    match = SHOWN.search(done.err)
    assert match is not None, done.err
    rows = json.loads(done.out)
    assert sum(row["calls"] for row in rows) == int(match[1]) == int(match[2])
    assert {row["function"] for row in rows} <= {"f_counted"}
    return int(match[2]), int(match[3])


def test_a_compressed_recording_has_every_call(account: Account, folder: Path) -> None:
    events, dropped, unwritten, _ = record(account, folder, "--compress", "-m", "32M")
    assert events + dropped == CALLS
    assert unwritten == 0
    assert shown(account, "-i", folder / "t") == (events, dropped)
    assert (folder / "t").stat().st_size < events * 24 // 3


@pytest.mark.parametrize("options", [(), ("--no-parent", "--compress", "-m", "1M")])
def test_rotated_files_have_every_call_together(
    account: Account, folder: Path, options: tuple[str, ...]
) -> None:
    words = ("-m", "32M", *options, "--rotate", "4M")
    events, dropped, _, done = record(account, folder, *words)
    assert events + dropped == CALLS
    files = [folder / "t"]
    while (file := folder / f"t.{len(files)}").exists():
        files.append(file)
    if not options:  # the ring has room for all of it
        assert dropped == 0 and len(files) >= 6
        assert f"; {len(files)} files, {folder}/t.1 to .{len(files) - 1} are older; " in done.err
    assert all(file.stat().st_size <= 4 << 20 for file in files)
    each = [shown(account, "-i", file) for file in files]
    assert (sum(part[0] for part in each), sum(part[1] for part in each)) == (events, dropped)
    assert shown(account, "-i", folder / "t", "--rotated") == (events, dropped)
    text = fentry(account, "report", "-i", folder / "t", "--rotated", "--head", "1")
    assert re.search(r": f_counted( <-work)?$", text.out, re.MULTILINE), text.out


def test_the_oldest_files_are_removed_and_what_was_in_them_is_told(
    account: Account, folder: Path
) -> None:
    events, dropped, _, done = record(account, folder, "-m", "32M", "--rotate", "4M,2")
    assert (events, dropped) == (CALLS, 0)
    match = re.search(r"; (\d+) files, of them (\d+) removed with (\d+) events, ", done.err)
    assert match is not None, done.err
    files, removed, gone = map(int, match.groups())
    assert files - removed == 2
    kept = [shown(account, "-i", folder / name)[0] for name in ("t", "t.1")]
    assert sum(kept) + gone == CALLS
    assert sorted(one.name for one in folder.glob("t*")) == ["t", "t.1"]


def test_at_its_size_a_recording_ends_and_counts_what_has_no_room(
    account: Account, folder: Path
) -> None:
    events, dropped, unwritten, _ = record(account, folder, "-m", "32M", "--max-size", "4M")
    assert (folder / "t").stat().st_size <= 4 << 20
    assert unwritten > 0
    assert 0 < events + dropped + unwritten <= CALLS  # then it is not traced any more
    assert shown(account, "-i", folder / "t")[0] == events
    report = fentry(account, "report", "-i", folder / "t", "--head", "1")
    assert f"{unwritten} more were recorded than --max-size has room for" in report.err


def test_threads_and_functions_have_their_names_in_every_file(
    account: Account, folder: Path
) -> None:
    with start(build("overflow.c"), "threads=2", account=account) as target:
        done = fentry(
            account, "record", "-p", target.pid, "-F", "f_*", "-d", "1s", "--rotate", "4M,3",
            "-o", folder / "t",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert target.stop().is_well
    for file in folder.glob("t*"):
        text = fentry(account, "report", "-i", file, "--head", "5")
        lines = [line for line in text.out.splitlines() if line[0] != "#"]
        assert all("overflow" in line and ": f_busy <-work" in line for line in lines), text.out
        assert "no damage" in text.err


def test_what_cannot_be_kept_is_refused_before_anything_is_touched(
    account: Account, folder: Path
) -> None:
    words = {
        ("--rotate", "1K"): "a trace file of 1024 bytes is too small",
        ("--rotate", "8M,1"): "one file alone cannot be rotated",
        ("--rotate", "8M,x"): "'x' is no number of files",
        ("--rotate", "8M", "--max-size", "8M"): "exclude each other",
        ("--max-size", "many"): "'many' is no size",
    }
    for options, said in words.items():
        done = fentry(account, "record", "-o", folder / "t", *options, "--", "/bin/true")
        assert (done.code, said in done.err) == (2, True), done.err
    (folder / "t.1").write_text("my thesis")
    done = fentry(account, "record", "-o", folder / "t", "--rotate", "8M", "--", "/bin/true")
    assert (done.code, "t.1\n  cause: it exists and is not a fentry trace" in done.err) == (
        10,
        True,
    )
    assert not (folder / "t").exists()
