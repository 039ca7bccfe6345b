"""Hard cases 68 to 70: threads that come and go during an attach, and exec."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.live.programs.fed import folder, guests
from tests.support import tracing
from tests.support.build import build
from tests.support.process import Target, start
from tests.support.state import diff, read_maps, snapshot
from tests.support.unprivileged import Account

import fentry.cli.record
import fentry.cli.report  # noqa: F401  (the account may not be able to read them later)
from fentry.cli.__main__ import main
from fentry.errors import TargetGone
from fentry.session import Options, Session, attach

BIG = Options(buffer_bytes=16 << 20)


# 68


def test_threads_born_during_attach_are_traced_exactly(account: Account) -> None:
    with start(build("storm.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], Counter[str], int, float]:
            target.go()
            target.await_calls("threads", 50)
            for _ in range(5):
                with attach(target.pid, tracing.SMALL) as session:
                    session.register(tracing.recording("f_*"))
                    target.await_calls("threads", 16)
            target.hold()
            with attach(target.pid, BIG) as session:
                before = target.counters()
                ops = session.register(tracing.counting("f_*"))
                session.register(tracing.recording("f_*"))
                target.go()
                target.await_calls("threads", 200)
                made = target.hold() - before
                records = tracing.recorded(session)
                counts = tracing.counted(session, ops)
                return made, counts, records, tracing.dropped(session)

        made, counts, records, lost = account.run(controller)
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert made["f_storm"] >= 2000
    assert counts == {"f_storm": made["f_storm"]}
    assert records["f_storm"] + lost == made["f_storm"]


# 69


def test_threads_that_exit_while_seized_are_no_error(account: Account) -> None:
    with start(build("storm.c"), "calls=0", "batch=16", account=account) as target:

        def controller() -> None:
            for _ in range(20):
                with attach(target.pid, tracing.SMALL):
                    pass

        account.run(controller)
        target.await_calls("threads", 16)
        end = target.stop()
    assert end.is_well, end.err


def test_process_whose_main_thread_has_ended_is_traced(account: Account) -> None:
    with start(build("zombie_leader.c"), account=account, hold=True) as target:
        # Who told that all is ready ends, too.
        target.await_condition(lambda: len(target.tids()) == 4, "the last has ended")
        worker = next(tid for tid in target.tids() if tid != target.pid)
        before = snapshot(worker)

        def controller() -> tuple[Counter[str], Counter[str], Counter[str]]:
            with attach(target.pid, BIG) as session:
                ops = session.register(tracing.counting("f_*"))
                session.register(tracing.recording("f_*"))
                target.go()
                target.await_calls("f_worker", 500)
                held = target.hold()
                return held, tracing.counted(session, ops), tracing.recorded(session)

        held, counts, records = account.run(controller)
        found = diff(before, snapshot(worker))
        target.go()
        end = target.stop()
    assert counts == records == {"f_worker": held["f_worker"]}
    assert found == []
    assert end.is_well, end.err


# 70


def untrue_text(pid: int) -> list[str]:
    """Executable mappings whose bytes differ from their file's; [] in an untouched image."""
    wrong = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for m in read_maps(pid):
            if "x" in m.perms and m.path.startswith("/"):
                memory.seek(m.start)
                content = Path(m.path).read_bytes()[m.offset : m.offset + m.end - m.start]
                if memory.read(m.end - m.start)[: len(content)] != content:
                    wrong.append(m.path)
    return wrong


def await_next_image(target: Target) -> None:
    """Wait for an exec, and for calls in the new image."""
    target.await_calls("execs")
    target.await_calls("f_image", 200)


def attached_within_one_image(target: Target) -> Session:
    """A session that records f_image; an exec may come first, then the next image is tried."""
    for _ in range(20):
        session = None
        try:
            session = attach(target.pid, tracing.SMALL)
            session.register(tracing.recording("f_*"))
        except TargetGone:
            if session is not None:
                session.close()
            continue
        return session
    raise AssertionError("no image of 20 lived long enough to be attached to")


def test_session_ends_by_itself_after_exec(account: Account) -> None:
    with start(build("execloop.c"), "ms=500", account=account) as target:

        def controller() -> tuple[int, bool]:
            session = attached_within_one_image(target)
            await_next_image(target)
            with pytest.raises(TargetGone, match="exec"):
                session.register(tracing.counting("f_*"))
            alive = session.target.is_alive()
            session.detach()
            records = tracing.recorded(session, final=True)["f_image"]
            session.close()
            return records, alive

        records, alive = account.run(controller)
        assert not alive
        assert records > 0
        await_next_image(target)
        assert guests(target.pid) == []
        assert untrue_text(target.pid) == []
        assert target.stop().is_well


def test_attach_against_an_exec_loop_works_or_says_that_the_image_is_gone(
    account: Account,
) -> None:
    with start(build("execloop.c"), "ms=4", account=account) as target:

        def controller() -> Counter[str]:
            outcomes: Counter[str] = Counter()
            for _ in range(25):
                try:
                    tracing.full_cycle(target.pid)
                    outcomes["traced"] += 1
                except TargetGone:
                    outcomes["gone"] += 1
            return outcomes

        outcomes = account.run(controller)
        target.await_calls("execs", 2)
        end = target.stop()
    assert outcomes.total() == 25
    assert end.is_well, end.err


def test_record_command_ends_at_exec_with_its_data(account: Account) -> None:
    with (
        start(build("execloop.c"), "ms=600", account=account) as target,
        folder(account) as place,
    ):
        path = str(place / "trace.fentry")
        pid = str(target.pid)
        record = ["fentry", "record", "-p", pid, "-F", "f_image", "-o", path]
        done = next(
            done
            for done in (account.call_main(main, record) for _ in range(20))
            if done.code != TargetGone.exit_code  # an exec came first: the next image is tried
        )
        report = account.call_main(main, ["fentry", "report", "-i", path])
        await_next_image(target)
        assert untrue_text(target.pid) == []
        assert target.stop().is_well
    assert done.code == 0, done.err
    assert "the process replaced itself by exec" in done.err
    assert "f_image" in report.out
