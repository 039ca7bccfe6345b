"""Hard cases 3 and 6: functions entered behind their first instruction, patched by a short jump."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.process import start
from tests.support.state import diff, snapshot, text_hash
from tests.support.stepping import stop_at
from tests.support.unprivileged import Account

from fentry.errors import RegionError
from fentry.session import attach
from fentry.sites.site import SiteKind

SHORT = ("f_around", "f_loop_into")
CARRIED = ("f_tiny", "f_hop")


def test_functions_entered_from_inside_are_counted_by_their_entries(account: Account) -> None:
    with start(build("hot.c"), "threads=4", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[dict[str, int], dict[str, int], set[int]]:
            with attach(target.pid, tracing.SMALL) as session:
                count = session.register(tracing.counting(*SHORT, "f_inside"))
                kinds = session.functions.table.kind[count.members].tolist()
                target.go()
                target.await_calls("f_around", 5000)
                return target.hold(), tracing.counted(session, count), set(kinds[:2])

        held, counts, kinds = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert kinds == {SiteKind.SHORT}
    assert counts == {name: held[name] for name in (*SHORT, "f_inside")}
    assert end.is_well, end.err


def test_functions_shorter_than_a_jump_are_counted_with_a_carrier(account: Account) -> None:
    # Traced alone, and together with the function whose instructions make room for them.
    with start(build("hot.c"), "threads=4", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller(*names: str) -> tuple[dict[str, int], dict[str, int], list[bool]]:
            with attach(target.pid, tracing.SMALL) as session:
                count = session.register(tracing.counting(*names))
                table = session.functions.table
                carried = table.carrier[count.members] != 0
                begun = target.counters()
                target.go()
                target.await_calls("f_tiny", 5000)
                made = target.hold()
                made.subtract(begun)
                calls = {name: made[name] for name in names}
                return calls, tracing.counted(session, count), sorted(carried.tolist())

        for names, carriers in (
            (CARRIED, [True, True]),
            ((*CARRIED, "f_carrier"), [False, True, True]),
        ):
            made, counts, carried = account.run(controller, *names)
            assert carried == carriers
            assert counts == made
            assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err


@pytest.mark.usefixtures("soon_given_up")
@pytest.mark.parametrize("place", ["carrier", "hole", "copy"])
def test_a_thread_in_a_carrier_survives_the_first_trace_and_the_detach(
    account: Account, place: str
) -> None:
    # Standing between the instructions that are moved away, at the long jump in their place, and
    # in their copy.
    with start(build("hot.c"), "threads=1", "check=0", account=account) as target:
        before = text_hash(target.pid)

        def controller() -> None:
            session = attach(target.pid, tracing.SMALL)
            table = session.functions.table
            (row,) = session.functions.match(("f_tiny",), ()).nonzero()[0]
            if place != "carrier":
                session.register(tracing.counting("f_tiny"))
            addresses = {
                "carrier": int(table.hole[row]) + 2,  # behind two of its three instructions
                "hole": int(table.hole[row]),
                "copy": int(session._known.dispatcher._text.pad[row]) + 64 + 7,
            }
            tid = next(tid for tid in target.tids() if tid != target.pid)
            stop_at(tid, addresses[place])
            target.await_condition(lambda: is_stopped(tid), "stopped where it stands")
            if place == "carrier":
                session.register(tracing.counting("f_tiny"))
                os.kill(target.pid, signal.SIGCONT)
                target.await_calls("f_tiny", 1000)
            session.close()

        account.run(controller)
        os.kill(target.pid, signal.SIGCONT)
        target.await_calls("f_carrier", 1000)
        if place == "copy":  # it was kept for the thread that stood in it, which runs again now
            account.run(lambda: tracing.detach_as_command(target.pid))
        assert text_hash(target.pid) == before
        end = target.stop()
    assert end.is_well, end.err


def test_breakpoints_over_a_carrier_keep_what_it_leads_to(account: Account) -> None:
    # Who takes them away brings the jumps back: what they lead to has to be there.
    with start(build("hot.c"), "threads=2", account=account, hold=True) as target:

        def controller(over: str) -> None:
            session = attach(target.pid, tracing.SMALL)
            session.register(tracing.counting("f_tiny"))
            table = session.functions.table
            (row,) = session.functions.match(("f_tiny",), ()).nonzero()[0]
            places = {
                "carrier": int(table.hole[row]) - 5,
                "in the carrier's jump": int(table.hole[row]) - 3,
                "hole": int(table.hole[row]),
                "in the hole": int(table.hole[row]) + 2,
                "entry": int(table.patch[row]),
            }
            place = places[over]
            memory = Path(f"/proc/{target.pid}/mem")
            with memory.open("r+b", buffering=0) as file:
                file.seek(place)
                first = file.read(1)
                file.seek(place)
                file.write(b"\xcc")
                session.close()
                assert session.foreign != ()
                file.seek(place)
                file.write(first)

        for over in ("carrier", "in the carrier's jump", "hole", "in the hole", "entry"):
            account.run(controller, over)
            target.go()
            target.await_calls("f_tiny", 1000)
            target.await_calls("f_carrier", 1000)
            account.run(lambda: tracing.detach_as_command(target.pid))
            target.await_calls("f_carrier", 1000)
            target.hold()
        target.go()
        end = target.stop()
    assert end.is_well, end.err


@pytest.mark.usefixtures("soon_given_up")
@pytest.mark.parametrize("place", ["entry", "hole", "pad"])
@pytest.mark.parametrize("by_command", [False, True], ids=["close", "detach"])
def test_a_thread_between_the_two_jumps_survives_the_detach(
    account: Account, place: str, by_command: bool
) -> None:
    # Standing at the short jump, at the long one in the hole, or where that leads.
    with start(build("hot.c"), "threads=1", "check=0", account=account) as target:
        before = text_hash(target.pid)

        def controller() -> None:
            session = attach(target.pid, tracing.SMALL)
            session.register(tracing.counting("f_around"))
            table = session.functions.table
            (row,) = session.functions.match(("f_around",), ()).nonzero()[0]
            addresses = {
                "entry": int(table.patch[row]),
                "hole": int(table.hole[row]),
                "pad": int(session._known.dispatcher._text.pad[row]) + 8,
            }
            tid = next(tid for tid in target.tids() if tid != target.pid)
            stop_at(tid, addresses[place])
            target.await_condition(lambda: is_stopped(tid), "stopped where it stands")
            if by_command and place == "pad":
                with pytest.raises(RegionError, match="stay mapped"):
                    tracing.detach_as_command(target.pid)
            elif by_command:
                tracing.detach_as_command(target.pid)
            else:
                session.close()

        account.run(controller)
        os.kill(target.pid, signal.SIGCONT)
        target.await_calls("f_around", 1000)
        if place == "pad":  # it was kept for the thread that stood in it, which runs again now
            account.run(lambda: tracing.detach_as_command(target.pid))
        assert text_hash(target.pid) == before
        end = target.stop()
    assert end.is_well, end.err


def test_a_breakpoint_over_the_short_jump_keeps_the_long_one(account: Account) -> None:
    # Who takes it away brings the short jump back: what it leads to has to be there.
    with start(build("hot.c"), "threads=2", account=account, hold=True) as target:

        def controller() -> tuple[bytes, bytes]:
            session = attach(target.pid, tracing.SMALL)
            session.register(tracing.counting("f_around"))
            table = session.functions.table
            (row,) = session.functions.match(("f_around",), ()).nonzero()[0]
            patch, hole = int(table.patch[row]), int(table.hole[row])
            memory = Path(f"/proc/{target.pid}/mem")
            with memory.open("r+b", buffering=0) as file:
                file.seek(patch)
                first = file.read(1)
                file.seek(patch)
                file.write(b"\xcc")
                session.close()
                file.seek(patch)
                file.write(first)
                file.seek(hole)
                return first, file.read(1)

        first, jump = account.run(controller)
        assert (first, jump) == (b"\xeb", b"\xe9")
        target.go()
        target.await_calls("f_around", 1000)

        def again() -> str:
            return tracing.detach_as_command(target.pid)

        account.run(again)
        target.await_calls("f_around", 1000)
        end = target.stop()
    assert end.is_well, end.err


def is_stopped(tid: int) -> bool:
    return Path(f"/proc/{tid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
