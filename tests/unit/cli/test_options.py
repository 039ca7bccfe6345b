"""Sizes, times, patterns, the last line of a recording."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fentry.cli.options import parse_bytes, parse_seconds, patterns
from fentry.cli.record import final_line
from fentry.cli.stat import stat
from fentry.errors import BadInput
from fentry.recording import Summary


@pytest.mark.parametrize(
    ("text", "count"),
    [("4096", 4096), ("64K", 65536), ("64k", 65536), ("4M", 4194304), ("4MiB", 4194304),
     ("1G", 1073741824), ("0.5M", 524288)],
)  # fmt: skip
def test_sizes_are_understood(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "K", "-1", "0", "nan", "inf", "1e999", "4X", "4 M B", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is no size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2.0), ("2s", 2.0), ("10ms", 0.01), ("1m", 60.0), ("1h", 3600.0)]
)
def test_times_are_understood(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "0", "nan", "inf", "1e999", "9999h", "1 week"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is no time"):
        parse_seconds(text)


def test_one_option_may_hold_several_patterns() -> None:
    assert patterns(("malloc,free", "libc!mem*")) == ("malloc", "free", "libc!mem*")


@pytest.mark.parametrize("value", ["", "malloc,", ",malloc"])
def test_an_empty_pattern_is_refused(value: str) -> None:
    # an unset variable of a shell must not choose every function
    with pytest.raises(BadInput, match="an empty pattern"):
        patterns((value,))


def test_last_line_names_only_losses_that_there_were() -> None:
    summary = Summary(
        events=10, functions=2, refused=1, stops_ns=[1_500_000, 500_000], why_ended="time is up"
    )
    assert final_line(summary, "t") == (
        "10 events, 0 dropped; 2 functions traced, 1 refused; stopped 2 times, 2.0 ms, "
        "longest 1.5 ms; time is up; next: fentry report -i t"
    )
    lossy = Summary(events=1, dropped=2, overrun=3, incomplete=4, unwritten=5)
    assert final_line(lossy, "t").startswith(
        "1 events, 2 dropped, 3 overwritten, 4 incomplete, 5 not written; "
    )
    assert lossy.calls == 15


def test_the_package_runs_as_the_command() -> None:
    words = [sys.executable, "-m", "fentry", "list", "--nonsense"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: fentry list ")


@pytest.mark.parametrize("other", ["--json", "--all"])
def test_a_screen_has_no_json_and_not_all(other: str) -> None:
    with pytest.raises(BadInput, match="--top is a screen"):
        stat.main(["--top", other, "-p", "1"], standalone_mode=False)
