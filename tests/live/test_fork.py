"""Forked children: silent, found, and restored on demand, without touching their parent."""

from __future__ import annotations

import os
import signal

from tests.support import tracing
from tests.support.build import build
from tests.support.process import start
from tests.support.state import text_hash
from tests.support.unprivileged import Account

from fentry.cli.__main__ import main
from fentry.cli.status import describe
from fentry.process.target import Target as Ours
from fentry.region.inherited import inheritors_of
from fentry.session import attach


def test_child_born_while_traced_is_silent_found_and_restored(account: Account) -> None:
    with start(build("children.c"), account=account, hold=True) as target:
        before = text_hash(target.pid)

        def controller() -> dict[str, object]:
            with attach(target.pid) as session:
                count = session.register(tracing.counting("f_work"))
                session.register(tracing.recording("f_work"))
                target.go()
                target.await_condition(lambda: target.counters()["child"] > 0, "a child")
                target.await_calls("f_child", 50)
                held = target.hold()
                child = target.counters()["child"]
                seen = {
                    "child": child,
                    "counted": tracing.counted(session, count)["f_work"],
                    "recorded": tracing.recorded(session)["f_work"],
                    "held": held["f_work"],
                    "inheritors": inheritors_of(target.pid),
                }
                ours = Ours(child)
                seen["state"] = describe(ours, False)["state"]
                ours.close()
                seen["said"] = tracing.detach_as_command(child)
                seen["text"] = text_hash(child)
                seen["again"] = inheritors_of(target.pid)
                target.go()
                target.await_calls("f_work", 50)
                held = target.hold()
                seen["parent"] = tracing.counted(session, count)["f_work"] - held["f_work"]
            return seen

        seen = account.run(controller)
        os.kill(seen["child"], signal.SIGTERM)
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert seen["counted"] == seen["recorded"] == seen["held"]
    assert seen["inheritors"] == [seen["child"]]
    assert seen["state"] == "inherited by fork, silent"
    assert "1 sites restored" in seen["said"]
    assert seen["text"] == before
    assert seen["again"] == []
    assert seen["parent"] == 0


def test_detach_command_restores_forked_children_too(account: Account) -> None:
    with start(build("children.c"), account=account, hold=True) as target:
        before = text_hash(target.pid)

        def controller() -> dict[str, object]:
            session = attach(target.pid)
            session.register(tracing.recording("f_work"))
            target.go()
            target.await_condition(lambda: target.counters()["child"] > 0, "a child")
            target.await_calls("f_child", 10)
            child = target.counters()["child"]
            ours = Ours(target.pid)
            listed = describe(ours, False)["children"]
            ours.close()
            done = account.call_main(main, ["fentry", "detach", "-p", str(target.pid)])
            return {
                "child": child,
                "listed": listed,
                "lines": done.out.splitlines(),
                "code": done.code,
                "texts": [text_hash(target.pid), text_hash(child)],
            }

        seen = account.run(controller)
        os.kill(seen["child"], signal.SIGTERM)
        assert target.stop().is_well
    assert seen["listed"] == [seen["child"]]
    assert seen["code"] == 0
    assert [line.endswith("1 sites restored") for line in seen["lines"]] == [True, True]
    assert seen["texts"] == [before, before]
