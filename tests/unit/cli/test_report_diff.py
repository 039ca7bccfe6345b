"""fentry report --diff: two traces side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.ring_batches import Call, batch, meta, write_trace

from fentry.cli.report import report

SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 seconds with 3 calls of leaf and 1 of main; 4 seconds with 2 of leaf, 3 of later."""
    monkeypatch.chdir(tmp_path)
    leaves = [Call(SECOND), Call(2 * SECOND, tid=77), Call(3 * SECOND)]
    write_trace(
        Path("trace.fentry"),
        [batch(0, 0, leaves), batch(1, 0, [Call(2 * SECOND, key=1)])],
    )
    others = [Call(9 * SECOND, key=1), Call(10 * SECOND, key=1), Call(11 * SECOND, key=1)]
    write_trace(
        Path("after"),
        [batch(1, 0, [Call(7 * SECOND), Call(8 * SECOND)]), batch(0, 0, others)],
        names=("leaf", "later"),
        build_id="cd34",
    )


def run(*arguments: str) -> Result:
    return CliRunner().invoke(report, ["--diff", "after", *arguments])


def rows(*arguments: str) -> list[tuple[str, int, int]]:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    return [(row["function"], row["before"], row["after"]) for row in json.loads(result.stdout)]


def test_functions_stand_side_by_side() -> None:
    result = run()
    assert result.exit_code == 0
    assert result.stdout == (
        "      BEFORE         AFTER        CHANGE      BEFORE/S       AFTER/S  FUNCTION  MODULE\n"
        "           -             3            +3             -           0.8  later     demo\n"
        "           3             2            -1           1.5           0.5  leaf      demo\n"
        "           1             -            -1           0.5             -  main      demo\n"
    )
    assert result.stderr == (
        "/usr/bin/demo is another build: functions are matched by name\n"
        "trace.fentry: 4 of 4 events (clock tsc), 0 dropped, no damage\n"
        "after: 5 of 5 events (clock tsc), 0 dropped, no damage\n"
    )


def test_json_is_one_array_of_everything() -> None:
    assert json.loads(run("--json", "-F", "leaf").stdout) == [
        {
            "function": "leaf",
            "module": "/usr/bin/demo",
            "before": 3,
            "after": 2,
            "change": -1,
            "before_per_second": 1.5,
            "after_per_second": 0.5,
        }
    ]


def test_what_is_chosen_is_chosen_in_both() -> None:
    assert rows("--tid", "77") == [("leaf", 1, 0)]
    assert rows("-N", "leaf") == [("later", 0, 3), ("main", 1, 0)]
    assert rows("--until", "8") == [("leaf", 3, 1), ("main", 1, 0)]
    assert rows("--head", "1") == [("leaf", 1, 1)]


def test_a_function_need_be_in_one_of_them_only() -> None:
    assert rows("-F", "later") == [("later", 0, 3)]
    assert rows("-F", "main", "-F", "later") == [("later", 0, 3), ("main", 1, 0)]

    result = run("-F", "nowhere")
    assert result.exit_code == 5
    assert "no function matches 'nowhere'" in result.stderr


def test_rates_are_of_all_events_between_the_chosen_times() -> None:
    (row,) = json.loads(run("--json", "-F", "leaf", "--since", "2").stdout)

    assert (row["before_per_second"], row["after_per_second"]) == (2.0, 0.5)


def test_without_times_there_are_no_rates() -> None:
    counted = dataclasses.replace(meta(), clock="percpu-counter")
    write_trace(Path("after"), [batch(0, 1024, [Call(512)])], of=counted)

    result = run("-F", "leaf")
    assert result.stdout == (
        "      BEFORE         AFTER        CHANGE  FUNCTION  MODULE\n"
        "           3             1            -2  leaf      demo\n"
    )
    (row,) = json.loads(run("-F", "leaf", "--json").stdout)
    assert (row["before_per_second"], row["after_per_second"]) == (1.5, None)


def test_an_empty_trace_has_called_nothing() -> None:
    write_trace(Path("after"), [])

    assert rows() == [("leaf", 3, 0), ("main", 1, 0)]


def test_records_of_16_bytes_are_compared_too() -> None:
    one = batch(0, 0, [Call(5)], record_bytes=16)
    write_trace(Path("after"), [one], of=meta(record_bytes=16))

    assert rows() == [("leaf", 3, 1), ("main", 1, 0)]


def test_damage_is_told_of_the_trace_that_has_it() -> None:
    data = bytearray(Path("after").read_bytes())
    data[data.index(b"bash")] ^= 0xFF
    Path("after").write_bytes(data)

    lines = run().stderr.splitlines()
    assert lines[1] == "trace.fentry: 4 of 4 events (clock tsc), 0 dropped, no damage"
    assert lines[2] == "fentry: after is damaged: what is whole was read"
    assert lines[4] == "after: 5 of 5 events (clock tsc), 0 dropped, damaged in 1 place"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--diff", "missing"), 10, "cannot read missing"),
        (("-i", "missing"), 10, "cannot read missing"),
        (("-i", "-", "--diff", "-"), 2, "both traces are standard input"),
    ],
)
def test_a_trace_that_is_not_there_is_refused(words: tuple[str, ...], code: int, said: str) -> None:
    result = run(*words)

    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""
