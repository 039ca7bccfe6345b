"""What is made of the traces of live programs: other formats, read by other tools, and what differs
between two of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.build import build
from tests.support.cli import fentry, folder_of
from tests.support.machine import need_tool
from tests.support.unprivileged import Account


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


def record(account: Account, trace: Path, *arguments: object) -> None:
    done = fentry(account, "record", *arguments, "-o", trace, "--", build("turns.c"))
    assert done.code == 0, done.err
    assert " 0 dropped" in done.err


def test_every_call_is_read_from_a_ctf_trace_by_babeltrace2(account: Account, folder: Path) -> None:
    record(account, folder / "t", "-F", "f_first", "-F", "f_second")
    done = fentry(account, "export", "ctf", "-i", folder / "t")
    assert done.err == (
        f"10000 of 10000 events to {folder}/t.ctf (Common Trace Format: babeltrace2, "
        "Trace Compass), 0 lost\n"
    )
    command = [need_tool("babeltrace2"), "--clock-seconds", folder / "t.ctf"]
    read = subprocess.run(command, capture_output=True, text=True, check=True)

    rows = [line.split('"') for line in read.stdout.splitlines()]
    assert [(row[3], row[5]) for row in rows] == [
        ("f_second" if number % 2 else "f_first", "main") for number in range(10_000)
    ]
    assert {row[1] for row in rows} == {build("turns.c").name[:15]}
    assert read.stderr == ""


def test_two_runs_of_a_program_differ_where_it_did(account: Account, folder: Path) -> None:
    record(account, folder / "one", "-F", "f_first", "-F", "f_second")
    record(account, folder / "two", "-F", "f_first")
    done = fentry(
        account, "report", "-i", folder / "one", "--diff", folder / "two", "--json", "-F", "f_*"
    )
    assert done.code == 0, done.err

    rows = json.loads(done.out)
    assert [(row["function"], row["before"], row["after"], row["change"]) for row in rows] == [
        ("f_second", 5000, 0, -5000), ("f_first", 5000, 5000, 0),
    ]  # fmt: skip
    assert {row["module"] for row in rows} == {str(build("turns.c"))}
    assert "another build" not in done.err
