"""Each target does what its head says when nobody touches it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.support.build import build
from tests.support.process import start
from tests.support.unprivileged import Account

PAGE_NAME = re.compile("f_page_(end|start|cross)_(nop|nops|frame)")
WORK = [
    ("hot.c", ("pause_us=200",), "f_redzone"),
    ("pageend.S", ("pause_us=200",), "f_page_cross_nop"),
    ("storm.c", (), "f_storm"),
    ("forks.c", (), "rounds"),
    ("zombie_leader.c", (), "f_worker"),
    ("known.c", (), "calls.w0"),
    ("sigstorm.c", (), "f_handler"),
    ("sigstorm.c", ("jump=1",), "jumps"),
    ("vfork_parent.c", ("ms=20",), "vforks"),
    ("execloop.c", ("ms=5",), "execs"),
    ("deep.c", ("pause_us=200",), "longjmps"),
    ("throw.cpp", ("pause_us=200",), "f_throws"),
    ("stopped.c", (), "f_running"),
    ("io_uring.c", ("workers=0",), "n.io_uring"),
]


@pytest.mark.parametrize(("source", "arguments", "counter"), WORK)
def test_target_works_and_ends_well(
    source: str, arguments: tuple[str, ...], counter: str, account: Account
) -> None:
    with start(build(source), *arguments, account=account) as target:
        if not target.counters()["skip"]:
            target.await_calls(counter, more=3)
        end = target.stop()

    assert end.is_well, end
    assert end.printed


@pytest.mark.parametrize("options", [{"static": True}, {"compiler": "musl-gcc"}, {"pie": False}])
def test_hot_works_in_other_builds(options: dict[str, object]) -> None:
    with start(build("hot.c", **options), "threads=2", "pause_us=200") as target:  # type: ignore[arg-type]  # one of three
        target.await_calls("f_loop_into", more=3)
        assert target.stop().is_well


def test_nolibc_has_no_thread_pointer_and_counts() -> None:
    with start(build("nolibc.c")) as target:
        held = target.hold()
        assert held == target.counters()
        target.go()
        target.await_calls("f_raw", more=200)
        end = target.stop()

    assert (end.code, end.bad) == (0, 0)


def test_syscalls_sees_no_eintr_and_every_signal() -> None:
    with start(build("syscalls.c")) as target:
        target.await_calls("n.poll", more=5)
        end = target.stop()

    assert end.is_well, end
    assert end.counters["signals.sent"] == end.counters["signals.handled"] > 0
    rounds = {name for name, count in end.counters.items() if name.startswith("n.") and count}
    assert len(rounds) == 34


def test_syscalls_counts_the_eintr_that_a_stop_causes() -> None:
    """SIGSTOP and SIGCONT make epoll_wait return EINTR: the bed must be able to see it."""
    with start(build("syscalls.c"), "only=epoll_wait") as target:
        while not target.counters()["eintr.epoll_wait"]:
            target.await_calls("n.epoll_wait")
            target.process.send_signal(signal.SIGSTOP)
            await_state(target.pid, "T")
            target.process.send_signal(signal.SIGCONT)
            target.await_calls("n.epoll_wait")
        end = target.stop()

    assert end.eintr["epoll_wait"] > 0
    assert not end.is_well


def test_forks_counts_only_what_the_parent_calls() -> None:
    with start(build("forks.c")) as target:
        target.await_calls("rounds", more=2)
        end = target.stop()

    assert end.counters["f_child"] == 10 * end.counters["rounds"]
    assert end.counters["f_vforked"] == 10 * end.counters["rounds"]


def test_the_leader_is_a_zombie_when_ready_is_said() -> None:
    with start(build("zombie_leader.c")) as target:
        await_state(target.pid, "Z")
        assert len(target.tids()) >= 4


def test_stopped_counts_continues() -> None:
    with start(build("stopped.c"), "self=1") as target:
        await_state(target.pid, "T")
        target.process.send_signal(signal.SIGCONT)
        target.await_condition(lambda: target.counters()["continued"] == 1, "continued")

        target.process.send_signal(signal.SIGSTOP)
        await_state(target.pid, "T")
        target.process.send_signal(signal.SIGCONT)
        target.await_condition(lambda: target.counters()["continued"] == 2, "continued")
        assert target.stop().is_well


def test_a_vfork_parent_waits_in_state_d() -> None:
    with start(build("vfork_parent.c"), "ms=400") as target:
        await_state(target.pid, "D")
        assert target.stop().is_well


def test_dso_loads_its_library_again_and_again() -> None:
    with start(build("dso.c"), f"library={build('libdso.c')}", "calls=10") as target:
        target.await_calls("loads", more=5)
        end = target.stop()

    assert end.is_well
    assert end.counters["f_library"] == 10 * end.counters["loads"]


def test_a_broken_register_is_seen() -> None:
    """The check of hot.c itself: a function that changes one register or flag is bad."""
    broken = build("hot.c", pie=False)
    with start(broken, "threads=1", "pause_us=1000") as target:
        target.hold()
        damage_function(target.pid, broken, "f_nop5")
        target.go()
        target.await_condition(lambda: target.bad > 0, "bad")
        end = target.stop()

    assert end.code == 1
    assert "f_nop5: register 2" in end.err
    assert set(Counter(line.split(":")[0] for line in end.err.splitlines())) <= {
        "f_nop5",
        "BAD f_nop5",
    }


def damage_function(pid: int, program: Path, name: str) -> None:
    """Write `inc %ecx` over the function's NOP: ecx and flags change."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    try:
        os.pwrite(fd, b"\xff\xc1\x0f\x1f\x00", addresses(program)[name])
    finally:
        os.close(fd)


def await_state(pid: int, letter: str) -> None:
    """Wait until the kernel shows the main thread in this state."""
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != letter:
        assert time.monotonic() < deadline, f"never in state {letter}"
        time.sleep(0.001)


def test_pageend_functions_lie_where_their_names_say() -> None:
    starts = addresses(build("pageend.S", pie=False))

    assert {name: starts[name] % 4096 for name in starts if PAGE_NAME.fullmatch(name)} == {
        "f_page_end_nop": 0xFFB,
        "f_page_end_nops": 0xFFB,
        "f_page_end_frame": 0xFFB,
        "f_page_start_nop": 0,
        "f_page_start_frame": 0,
        "f_page_cross_nop": 0xFFD,
        "f_page_cross_frame": 0xFFF,
    }
    assert starts["f_line_end_nop"] % 64 == 59
    assert starts["f_line_cross_nop"] % 64 == 61
    assert starts["f_line_cross_frame"] % 64 == 62


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("f_plain", "55 48 89 e5 5d c3"),
        ("f_nop5", "0f 1f 44 00 00 c3"),
        ("f_endbr_nop5", "f3 0f 1e fa 0f 1f 44 00 00 c3"),
        ("f_patchable", "90 90 90 90 90 c3"),
        ("f_padded", "90 90 90 90 90 c3"),
        ("f_short", "90 c3"),
    ],
)
def test_leaves_are_the_bytes_their_names_say(name: str, expected: str) -> None:
    program = build("hot.c", pie=False)
    address = addresses(program)[name]
    size = len(expected.split())
    shown = subprocess.run(
        [
            "objdump",
            "-s",
            f"--start-address={address}",
            f"--stop-address={address + size}",
            program,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[-1]

    assert "".join(shown.split("  ")[0].split()[1:]) == expected.replace(" ", "")


def addresses(program: Path) -> dict[str, int]:
    """Address of each symbol, from nm."""
    symbols = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in symbols.splitlines():
        value, _, name = line.rpartition(" ")
        if value[:1] in "0123456789abcdef":
            found[name] = int(value.split()[0], 16)
    return found


def test_deep_really_calls_itself_once_a_level() -> None:
    shown = subprocess.run(
        ["objdump", "-d", "--disassemble=f_deep", build("deep.c")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert shown.count("call ") == 1
    assert re.search(r"call +[0-9a-f]+ <f_deep>", shown)
