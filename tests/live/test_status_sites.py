"""fentry status --sites and --touched: the kernel's enabled_functions and touched_functions, read
from the process itself by who does not control it; and what was counted and recorded."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from typing import Any

from tests.support import tracing
from tests.support.build import build
from tests.support.cli import fentry
from tests.support.process import Target, start
from tests.support.unprivileged import Account

from fentry.session import Options, attach

BIG = Options(buffer_bytes=8 << 20)


def functions(account: Account, target: Target, flag: str) -> list[str]:
    """Lines of `status` behind its summary; addresses are ADDR, the program is [hot]."""
    shown = fentry(account, "status", "-p", target.pid, flag)
    assert (shown.code, shown.err) == (0, "")
    lines = [line for line in shown.out.splitlines()[1:] if not line.startswith("  ")]
    return [re.sub(r"\[hot-\w+\]", "[hot]", re.sub("0x[0-9a-f]+", "ADDR", x)) for x in lines]


def as_object(account: Account, target: Target, *flags: str) -> dict[str, Any]:
    """What --json prints."""
    found: dict[str, Any] = json.loads(
        fentry(account, "status", "-p", target.pid, "--json", *flags).out
    )
    return found


def test_sites_are_shown_as_enabled_functions_shows_them(account: Account) -> None:
    with start(build("hot.c"), "pause_us=100", account=account) as target:

        def controller() -> list[list[str]]:
            with attach(target.pid, tracing.SMALL) as session:
                session.register(tracing.recording("f_plain", "f_lea"))
                count = session.register(tracing.counting("f_lea", "f_nop5"))
                quiet = session.instance("quiet", tracing.SMALL)
                quiet.register(tracing.recording("f_lea"))
                shown = [functions(account, target, "--sites")]
                session.unregister(count)
                shown.append(functions(account, target, "--sites"))
                quiet.unregister(quiet.ops[0])
                shown.append(functions(account, target, "--sites"))
                shown.append(functions(account, target, "--touched"))
                return shown

        three, two, one, touched = account.run(controller)
        after = functions(account, target, "--sites")
        assert target.stop().is_well
    assert three == [
        "f_plain [hot] (1)           \ttramp: ADDR (record)",
        "f_lea [hot] (3)           \ttramp: ADDR (record in quiet, count, record)",
        "\tops: 3 (record in quiet)",
        "\tops: 2 (count)",
        "\tops: 1 (record)",
        "f_nop5 [hot] (1)           \ttramp: ADDR (count)",
    ]
    assert two == [
        "f_plain [hot] (1)           \ttramp: ADDR (record)",
        "f_lea [hot] (2)           \ttramp: ADDR (record in quiet, record)",
        "\tops: 3 (record in quiet)",
        "\tops: 1 (record)",
    ]
    assert one == [
        "f_plain [hot] (1)           \ttramp: ADDR (record)",
        "f_lea [hot] (1)           \ttramp: ADDR (record)",
    ]
    assert touched == [*one, "f_nop5 [hot] (0)"]
    assert after == []


def leave_traced(account: Account, target: Target) -> None:
    """A controller registers three ops in two instances and is killed."""
    child = os.fork()
    if not child:
        try:
            account.become()
            session = attach(target.pid, BIG)
            session.register(tracing.recording("f_plain", "f_lea"))
            session.register(tracing.counting("f_lea", "f_nop5"))
            off = session.instance("off", tracing.SMALL)
            off.register(tracing.recording("f_lea"))
            off.tracing_on = False
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_figures_of_ops_and_rings_are_exact_without_a_controller(account: Account) -> None:
    with start(build("hot.c"), "pause_us=2000", account=account, hold=True) as target:
        leave_traced(account, target)
        target.go()
        target.await_calls("f_plain", 300)
        held = target.hold()
        found = as_object(account, target, "--sites")
        shown = fentry(account, "status", "-p", target.pid).out
        account.run(tracing.detach_as_command, target.pid)
        target.go()
        assert target.stop().is_well
    assert [
        (ops["id"], ops["callback"], ops["instance"], ops["functions"], ops.get("hits"))
        for ops in found["ops"]
    ] == [
        (1, "record", "", 2, None),
        (2, "count", "", 2, held["f_lea"] + held["f_nop5"]),
        (3, "record", "off", 1, None),
    ]
    top, off = found["instances"]
    made = held["f_plain"] + held["f_lea"]
    assert (top["name"], top["records"], top["unread"], top["dropped"]) == ("", made, made, 0)
    assert (off["name"], off["records"], off["dropped"]) == ("off", 0, 0)
    assert (top["tracing_on"], off["tracing_on"]) == (True, False)
    assert f"  ring        {made} records, {made} of them not read yet, 0 dropped\n" in shown
    assert "  ring of off 0 records, 0 of them not read yet, 0 dropped; tracing is off\n" in shown
    assert f"(2 functions, {held['f_lea'] + held['f_nop5']} hits)\n" in shown
    assert [(call["name"], call["count"], call["flags"]) for call in found["calls"]] == [
        ("f_plain", 1, ""), ("f_lea", 3, ""), ("f_nop5", 1, ""),
    ]  # fmt: skip
    assert found["calls"][1]["ops"] == [
        {"id": 3, "callback": "record", "instance": "off"},
        {"id": 2, "callback": "count", "instance": ""},
        {"id": 1, "callback": "record", "instance": ""},
    ]


def test_every_function_of_a_large_set_has_a_line(account: Account) -> None:
    with start(build("hot.c"), "pause_us=100", account=account) as target:

        def controller() -> tuple[list[str], int]:
            with attach(target.pid, tracing.SMALL) as session:
                ops = session.register(tracing.recording("f_*"))
                traced = int((ops.members & session.functions.table.traceable).sum())
                return functions(account, target, "--sites"), traced

        lines, traced = account.run(controller)
        assert target.stop().is_well
    assert traced == len(lines) == 21
    assert Counter(line.partition(" ")[2] for line in lines) == {
        "[hot] (1)           \ttramp: ADDR (record)": 21
    }


def test_a_full_ring_is_told(account: Account) -> None:
    small = Options(buffer_bytes=4096)
    with start(build("hot.c"), "threads=2", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], dict[str, Any]]:
            with attach(target.pid, small) as session:
                session.register(tracing.recording("f_plain"))
                target.go()
                target.await_calls("f_plain", 10_000)
                held = target.hold()
                return held, as_object(account, target)

        held, found = account.run(controller)
        target.go()
        assert target.stop().is_well
    (ring,) = found["instances"]
    assert ring["records"] + ring["dropped"] == held["f_plain"]
    assert ring["unread"] == ring["records"] > 0 < ring["dropped"]
