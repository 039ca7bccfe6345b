"""Hard cases 74 and 75: libraries that are loaded and unloaded while their process is traced."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.live.test_hard_threads import untrue_text
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import fentry, folder_of
from tests.support.process import Target, start
from tests.support.unprivileged import Account

from fentry.errors import TargetGone
from fentry.session import Options, Session, attach

OWN = ("*",), ("libc!*", "ld-linux*!*", "bed_*")


def library() -> str:
    return f"library={build('libdso.c')}"


def followed(session: Session, target: Target, name: str) -> None:
    """Wait until a library of this name has been loaded and is traced."""
    seen: list[str] = []

    def look() -> bool:
        seen.extend(module.name for module in session.follow_modules())
        return any(name in one for one in seen)

    target.await_condition(look, f"{name} is loaded and traced")


def test_a_library_loaded_later_is_traced(account: Account) -> None:
    with start(build("dso.c"), library(), "keep=1", account=account, hold=True) as target:

        def controller() -> tuple[int, int, int]:
            with attach(target.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting(*OWN[0], notrace=OWN[1]))
                assert "f_library" not in tracing.counted(session, ops)
                assert session.follow_modules() == []
                target.go()
                followed(session, target, "libdso")
                first = target.hold()["f_library"], tracing.counted(session, ops)["f_library"]
                target.go()
                target.await_calls("f_library", 1000)
                last = target.hold()["f_library"], tracing.counted(session, ops)["f_library"]
                return last[0] - first[0], last[1] - first[1], first[1]

        made, counted, early = account.run(controller)
        target.go()
        end = target.stop()
    assert made == counted >= 1000 and early >= 0
    assert end.is_well, end.err


def test_one_that_comes_and_goes_is_traced_each_time(account: Account) -> None:
    words = (library(), "calls=50000000", "pause_us=20000")
    with start(build("dso.c"), *words, account=account, hold=True) as target:

        def controller() -> tuple[int, int, int]:
            with attach(target.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting(*OWN[0], notrace=OWN[1]))
                target.go()
                rounds = 0
                while rounds < 12:
                    target.await_condition(
                        lambda: bool(session.follow_modules()), "the library is loaded again"
                    )
                    rounds += 1
                held = target.hold()
                calls = tracing.counted(session, ops)["f_library"]
                return calls, held["f_library"], held["loads"]

        counted, made, loads = account.run(controller)
        target.go()
        end = target.stop()
    assert loads >= 12
    assert 0 < counted <= made + loads  # the constructor calls it as well
    assert end.is_well, end.err


def test_many_libraries_and_threads(account: Account) -> None:
    """Filters are changed while libraries come and go, all threads at work."""
    with start(build("dso.c"), library(), "pause_us=500", account=account) as target:

        def controller() -> None:
            with attach(target.pid, Options(buffer_bytes=1 << 20)) as session:
                count = session.register(tracing.counting(*OWN[0], notrace=OWN[1]))
                for i in range(200):
                    session.follow_modules()
                    if i % 5 == 0:
                        record = session.register(tracing.recording("*", notrace=OWN[1]))
                        session.follow_modules()
                        session.unregister(record)
                    assert target.is_alive and target.bad == 0, i
                assert tracing.counted(session, count)["f_library"] >= 0

        before = target.counters()["loads"]
        account.run(controller)
        assert target.counters()["loads"] > before + 10
        end = target.stop()
    assert end.is_well, end.err


@pytest.mark.parametrize("command", ["record", "stat"])
def test_the_commands_follow_what_is_loaded(account: Account, command: str) -> None:
    with (
        folder_of(account) as folder,
        start(build("dso.c"), library(), "keep=1", account=account, hold=True) as target,
    ):
        trace = folder / "trace"
        opener = threading.Thread(target=open_once_traced, args=(target, trace, command))
        opener.start()
        options = ["-o", trace] if command == "record" else ["--json"]
        words = [word for name in OWN[1] for word in ("-N", name)]
        done = fentry(account, command, "-p", target.pid, *options, *words)
        opener.join()
        end = target.await_end()
        if command == "record":
            done = fentry(account, "report", "-i", trace)
            assert " loaded meanwhile: " in done.err
    assert end.is_well, end.err
    assert done.code == 0, done.err
    assert ("f_library <-main" if command == "record" else '"f_library"') in done.out


def open_once_traced(target: Target, trace: Path, command: str) -> None:
    def is_traced() -> bool:
        return "fentry-" in maps_of(target.pid) and (command == "stat" or any_bytes(trace))

    target.await_condition(is_traced, "traced")
    target.go()
    target.await_condition(lambda: any("libdso" in p for p in untrue_text(target.pid)), "followed")
    target.await_calls("f_library", 1000)
    target.stop()


def any_bytes(trace: Path) -> bool:
    return any(path.stat().st_size for path in trace.parent.iterdir())


def maps_of(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_the_end_of_the_process_in_the_middle_of_a_new_look_is_told_each_time(
    account: Account,
) -> None:
    with start(build("dso.c"), library(), "calls=50000000", account=account, hold=True) as target:

        def controller() -> tuple[list[str], int]:
            with attach(target.pid, tracing.SMALL) as session:
                every = [
                    session.register(tracing.counting(*OWN[0], notrace=OWN[1])) for _ in range(3)
                ]
                told, look_at_foreign = [], session._known.refuse_foreign

                def end_first(members: NDArray[np.bool_]) -> None:
                    os.kill(target.pid, signal.SIGKILL)
                    target.await_condition(lambda: not target.is_alive, "its end")
                    look_at_foreign(members)

                target.go()
                target.await_condition(session._known.link_map.has_changed, "the library")
                session._known.refuse_foreign = end_first  # type: ignore[method-assign]
                for _ in range(3):
                    with suppress(TargetGone):
                        session.follow_modules()
                        told.append("nothing")
                return told, sum(tracing.counted(session, ops).total() for ops in every)

        told, counted = account.run(controller)
    assert told == []
    assert counted >= 0
