"""fentry export: what is written where, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.ring_batches import Call, batch, write_trace

from fentry.cli.__main__ import words
from fentry.formats.exports import FORMATS

CALLS = [
    batch(1, 0, [Call(1234_567_890_000), Call(1234_567_892_001)]),
    batch(0, 0, [Call(1234_567_891_000, key=1, parent_ip=0x7F0000001234, tid=77)]),
]


@pytest.fixture(autouse=True)
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "trace.fentry"
    write_trace(path, CALLS)
    monkeypatch.chdir(tmp_path)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(words, ["export", *arguments])


def test_chrome_has_every_call_on_the_track_of_its_thread(tmp_path: Path) -> None:
    result = run("chrome")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("3 of 3 events to trace.json (Chrome JSON")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]

    assert [event["args"]["name"] for event in events if event["ph"] == "M"] == [
        "/usr/bin/demo", "<...>", "bash",
    ]  # fmt: skip
    assert [
        (event["ts"], event["tid"], event["name"], event["args"]["parent"])
        for event in events
        if event["ph"] == "i"
    ] == [
        (1234567890.0, 1234, "leaf", "main"),
        (1234567891.0, 77, "main", "0x7f0000001234"),
        (1234567892.001, 1234, "leaf", "main"),
    ]


def test_an_export_is_for_its_owner_as_the_trace_is(tmp_path: Path) -> None:
    assert run("chrome").exit_code == run("uftrace").exit_code == 0
    assert (tmp_path / "trace.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "trace.uftrace").stat().st_mode & 0o777 == 0o700


def test_only_chosen_events_are_written(tmp_path: Path) -> None:
    assert run("chrome", "-F", "main").stderr.startswith("1 of 3 events")
    assert run("chrome", "-o", "b", "--thread", "ba*").stderr.startswith("2 of 3 events to b ")
    assert run("chrome", "-o", "c", "--since", "1234.6").stderr.startswith("0 of 3")
    assert run("chrome", "-o", "d", "--since", "1234.567891").stderr.startswith("2 of 3")
    assert run("chrome", "-o", "e", "--until", "1234.567891").stderr.startswith("1 of 3")


@pytest.mark.parametrize("form", FORMATS)
def test_a_trace_of_which_nothing_is_chosen_is_exported(form: str) -> None:
    assert run(form, "-o", "x", "--tid", "5").stderr.startswith("0 of 3 events to x ")
    assert run(form, "-o", "y", "--since", "5000").stderr.startswith("0 of 3 events to y ")


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text("mine")

    result = run("chrome")
    assert result.exit_code == 1 and "trace.json exists" in str(result.exception)
    assert (tmp_path / "trace.json").read_text() == "mine"
    assert run("chrome", "--force").exit_code == 0
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_nothing_is_left_where_nothing_can_be_written(tmp_path: Path) -> None:
    result = run("chrome", "-o", "missing/trace.json")

    assert str(result.exception) == (
        "cannot write missing/trace.json\n  cause: no such file or directory"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["trace.fentry"]


def test_files_and_folders_are_named_by_their_format(tmp_path: Path) -> None:
    assert run("trace.dat").stderr == (
        "3 of 3 events to trace.dat (trace-cmd report, KernelShark), 0 lost\n"
    )
    assert (tmp_path / "trace.dat").read_bytes()[:12] == b"\x17\x08\x44tracing6\0"
    assert run("uftrace").stderr.startswith("3 of 3 events to trace.uftrace (uftrace replay")
    assert (tmp_path / "trace.uftrace" / "info").read_bytes()[:8] == b"Ftrace!\0"

    # a folder is as little written over as a file is, and replaced as a whole
    (tmp_path / "trace.uftrace" / "mine").touch()
    assert "trace.uftrace exists" in str(run("uftrace").exception)
    assert run("uftrace", "--force", "--tid", "77").exit_code == 0
    assert not (tmp_path / "trace.uftrace" / "mine").exists()
    dats = [path.name for path in (tmp_path / "trace.uftrace").glob("*.dat")]
    assert dats == ["77.dat"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "trace.fentry", "trace.dat", "trace.uftrace",
    }  # fmt: skip


def test_a_folder_that_no_export_made_is_kept(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "results").write_text("of years")

    result = run("uftrace", "-o", "mine", "--force")
    assert "mine is a folder that no export made" in str(result.exception)
    assert (mine / "results").read_text() == "of years"
    for name in (".", "..", "/"):
        assert "is no name for a file" in str(run("chrome", "-o", name, "--force").exception)
    assert run("uftrace", "-o", "ours").exit_code == 0
    assert run("uftrace", "-o", "ours", "--force").exit_code == 0
    assert run("ctf", "-o", "ours", "--force").exit_code == 0
    assert run("ctf", "-o", "ours", "--force").exit_code == 0


def test_times_that_are_none_are_refused() -> None:
    for word in ("inf", "nan", "-inf"):
        assert "is no time" in str(run("chrome", "--since", word).exception)
