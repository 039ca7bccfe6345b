"""fentry live: every call once and in order, whoever reads, and the target as it was afterwards."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.live.test_hard_threads import untrue_text
from tests.support.build import build
from tests.support.cli import fentry
from tests.support.process import Target, start
from tests.support.running import running
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

LINE = re.compile(r"^ *(\S+)-(\d+) +\[(\d{3,})\] \.{5} +(\d+)\.(\d{6}): (\S+) <-(\S+)$")
LOST = re.compile(r"^CPU:(\d+) \[LOST (\d+) EVENTS\]$")


@pytest.fixture
def target(account: Account) -> Iterator[Target]:
    with start(build("hot.c"), "threads=2", "pause_us=200", account=account) as held:
        yield held


def lines_of(text: bytes) -> list[re.Match[str]]:
    found = [LINE.match(line) for line in text.decode().splitlines()]
    assert None not in found, text[:1000]
    return [one for one in found if one is not None]


def has_lines(text: bytes) -> bool:
    return text.count(b"\n") > 2


def test_every_call_of_a_command_is_printed_in_order_of_time(account: Account) -> None:
    program = build("turns.c")
    done = fentry(account, "live", "-F", "f_first", "-F", "f_second", "--", program)
    assert done.code == 0, done.err
    lines = lines_of(done.out.encode())
    assert [line[6] for line in lines] == ["f_first", "f_second"] * 5000
    assert {(line[1], line[3], line[7]) for line in lines} == {(program.name[:15], "000", "main")}
    times = [(int(line[4]), int(line[5])) for line in lines]
    assert all(one <= other for one, other in pairwise(times))
    assert done.err.startswith("10000 events, 0 dropped; 2 functions traced, 0 refused; ")
    assert done.err.endswith("; the process ended; next: fentry record ... -F GLOB\n")


def test_json_lines_have_the_same_calls(account: Account) -> None:
    program = build("turns.c")
    done = fentry(account, "live", "--json", "-F", "f_first,f_second", "--", program)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert Counter(row["function"] for row in rows) == {"f_first": 5000, "f_second": 5000}
    assert {(row["module"], row["parent"]) for row in rows} == {(str(program), "main")}
    assert all(one["time_ns"] <= other["time_ns"] for one, other in pairwise(rows))


def test_without_times_calls_have_their_number(account: Account) -> None:
    words = ("--clock", "percpu-counter", "--no-parent")
    done = fentry(account, "live", "-F", "f_first,f_second", *words, "--", build("turns.c"))
    found = [line.split(".....")[1] for line in done.out.splitlines()]
    assert found == [f" {i:12}: {'f_second' if i % 2 else 'f_first'}" for i in range(10_000)]


def test_a_signal_ends_it_and_restores_the_target(account: Account, target: Target) -> None:
    before = snapshot(target.pid)
    with running(account, "live", "-p", target.pid, "-F", "f_*") as command:
        command.await_text(has_lines, "calls")
        command.kill(signal.SIGINT)
        lines = lines_of(command.rest())
        assert command.wait() == 0, command.err
    events = rf"{len(lines)} events, 0 dropped; 21 functions .*; interrupted; "
    assert re.match(events, command.err)
    assert {int(line[2]) for line in lines} <= set(target.tids())
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert target.stop().is_well


def test_a_reader_that_goes_away_ends_it_quietly(account: Account, target: Target) -> None:
    before = snapshot(target.pid)
    with running(account, "live", "-p", target.pid, "-F", "f_*") as command:
        command.await_text(has_lines, "calls")
        command.close_reader()
        assert command.wait() == 141
    assert command.err == ""
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert target.stop().is_well


def test_it_notices_that_the_reader_is_gone_while_nothing_is_called(account: Account) -> None:
    with start(build("overflow.c"), "calls=1", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with running(account, "live", "-p", target.pid, "-F", "f_busy") as command:
            await_traced(target)
            command.close_reader()
            assert command.wait() == 141
        assert (command.err, diff(before, snapshot(target.pid))) == ("", [])


def await_traced(target: Target) -> None:
    target.await_condition(lambda: bool(untrue_text(target.pid)), "traced")


@pytest.mark.parametrize("stopped", ["reader", "command"])
def test_what_nobody_takes_is_counted_and_the_target_never_waits(
    account: Account, stopped: str
) -> None:
    calls = 400_000
    words = ("-F", "f_busy", "-m", "64K")
    with start(build("overflow.c"), "threads=2", account=account, hold=True) as target:
        with running(account, "live", "-p", target.pid, *words) as command:
            await_traced(target)
            target.go()
            command.await_text(has_lines, "calls")
            if stopped == "command":
                command.kill(signal.SIGSTOP)
            target.await_calls("f_busy", calls)  # the reader reads nothing meanwhile
            made = target.hold()["f_busy"]
            if stopped == "command":
                command.kill(signal.SIGCONT)
            command.kill(signal.SIGINT)
            printed = command.rest().decode().splitlines()
            assert command.wait() == 0, command.err
        target.go()
        assert target.stop().is_well
    lost = [int(found[2]) for line in printed if (found := LOST.match(line))]
    lines = lines_of("\n".join(line for line in printed if not LOST.match(line)).encode())
    assert len(lines) + sum(lost) == made >= calls
    assert sum(lost) > 0
    assert command.err.startswith(f"{len(lines)} events, {sum(lost)} dropped; ")


def test_functions_of_a_library_that_is_loaded_meanwhile_have_their_names(account: Account) -> None:
    library = f"library={build('libdso.c')}"
    notrace = ("-N", "libc!*", "-N", "ld-linux*!*", "-N", "bed_*")
    with start(build("dso.c"), library, "keep=1", account=account, hold=True) as target:
        with running(account, "live", "-p", target.pid, *notrace) as command:
            target.await_condition(
                lambda: "fentry-ring" in Path(f"/proc/{target.pid}/maps").read_text(), "traced"
            )
            target.go()
            command.await_text(lambda text: b": f_library <-main\n" in text, "the library's calls")
            end = target.stop()
            printed = command.rest().decode()
            assert command.wait() == 0, command.err
    assert end.is_well, end.err
    assert "; the process ended; " in command.err
    assert " 0x" not in printed


def test_a_thread_that_takes_another_name_is_called_so(account: Account) -> None:
    with start(build("lives.c"), account=account) as target:
        with running(account, "live", "-p", target.pid, "-F", "pthread_join") as command:
            for number in (1, 2):
                target.wish(number)
                name = b" _life-%d-" % number
                command.await_text(lambda text, name=name: name in text, "the name")
            command.kill(signal.SIGINT)
            command.rest()
            assert command.wait() == 0, command.err
        assert target.stop().is_well


def test_an_end_that_waits_for_its_reader_is_cut_short_by_one_more_signal(
    account: Account,
) -> None:
    with start(build("overflow.c"), "threads=2", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with running(account, "live", "-p", target.pid, "-F", "f_busy") as command:
            await_traced(target)
            target.go()
            command.await_text(has_lines, "calls")
            target.await_calls("f_busy", 400_000)
            command.kill(signal.SIGINT)
            target.hold()
            target.await_condition(lambda: diff(before, snapshot(target.pid)) == [], "restored")
            # Its last lines wait for us; each signal that comes then is a reason not to.
            command.kill_until_ended(signal.SIGINT)
            assert command.wait() == 0, command.err
        target.go()
        assert target.stop().is_well
    assert re.match(r"\d+ events, \d+ dropped, \d+ not written; .*; interrupted; ", command.err)
