"""Patterns that name a library which the process loads later, and the vDSO, which has no sites."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.live.test_dlopen import any_bytes, followed, library, maps_of
from tests.live.test_hard_threads import untrue_text
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import fentry, folder_of
from tests.support.process import Target, start
from tests.support.unprivileged import Account

from fentry.errors import SymbolNotFound
from fentry.session import attach

LATER = f"{build('libdso.c').name}!f_*"


def test_a_library_that_is_named_is_traced_when_it_is_loaded(account: Account) -> None:
    with start(build("dso.c"), library(), "keep=1", account=account, hold=True) as target:

        def controller() -> tuple[dict[str, list[str]], int, dict[str, list[str]], int, int]:
            with attach(target.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting(LATER))
                missing, before = session.not_loaded(ops), int(ops.members.sum())
                target.go()
                followed(session, target, "libdso")
                first = target.hold()["f_library"], tracing.counted(session, ops)["f_library"]
                target.go()
                target.await_calls("f_library", 1000)
                last = target.hold()["f_library"], tracing.counted(session, ops)["f_library"]
                return (
                    missing,
                    before,
                    session.not_loaded(ops),
                    last[0] - first[0],
                    last[1] - first[1],
                )

        missing, before, then, made, counted = account.run(controller)
        target.go()
        end = target.stop()
    assert list(missing) == [LATER.partition("!")[0]] and before == 0
    assert then == {}
    assert made == counted >= 1000
    assert end.is_well, end.err


def open_once_registered(target: Target, trace: Path, command: str) -> None:
    """Let it load its library once the command has looked for it in vain, call it when it is traced
    there, and end."""

    def is_registered() -> bool:
        memory = "fentry-ring" if command == "record" else "fentry-counters"
        return memory in maps_of(target.pid) and (command == "stat" or any_bytes(trace))

    target.await_condition(is_registered, "registered")
    target.go()
    target.await_condition(lambda: any("libdso" in p for p in untrue_text(target.pid)), "traced")
    target.await_calls("f_library", 1000)
    target.stop()


@pytest.mark.parametrize("command", ["record", "stat"])
def test_the_commands_wait_for_it(account: Account, command: str) -> None:
    with (
        folder_of(account) as folder,
        start(build("dso.c"), library(), "keep=1", account=account, hold=True) as target,
    ):
        trace = folder / "trace"
        opener = threading.Thread(target=open_once_registered, args=(target, trace, command))
        opener.start()
        options = ["-o", trace] if command == "record" else ["--json"]
        done = fentry(account, command, "-p", target.pid, *options, "-F", LATER)
        opener.join()
        end = target.await_end()
        shown = fentry(account, "report", "-i", trace) if command == "record" else done
    assert end.is_well, end.err
    assert done.code == 0, done.err
    name = LATER.partition("!")[0]
    assert f"{name} is not loaded: its functions are traced when it is loaded" in done.err
    assert "never loaded" not in done.err
    assert ("f_library <-main" if command == "record" else '"f_library"') in shown.out


@pytest.mark.parametrize("command", ["record", "stat"])
def test_one_that_never_comes_is_told_with_near_names(account: Account, command: str) -> None:
    with folder_of(account) as folder, start(build("hot.c"), account=account) as target:
        options = ["-o", folder / "trace"] if command == "record" else []
        words = ["-F", "libx.so!*", "-F", "!libx.so!f", "-F", "libz.so.6!*"]
        done = fentry(account, command, "-p", target.pid, "-d", "0.05", *options, *words)
        end = target.stop()
    assert done.code == 0, done.err
    assert "libx.so is not loaded: its functions are traced when it is loaded" in done.err
    assert "libz.so.6 is not loaded" in done.err and "(loaded: libc.so.6)" in done.err
    assert "libx.so and libz.so.6 were never loaded" in done.err
    assert end.is_well, end.err


def test_what_is_misspelt_or_can_never_come_is_an_error(account: Account) -> None:
    with (
        start(build("hot.c"), account=account) as target,
        start(build("hot.c", static=True), account=account) as static,
    ):

        def refused(pid: int, *words: str) -> str:
            with attach(pid, tracing.SMALL) as session:
                with pytest.raises(SymbolNotFound) as caught:
                    session.register(tracing.counting(*words))
                return str(caught.value)

        misspelt = account.run(refused, target.pid, "lib!malloc")
        mixed = account.run(refused, target.pid, "libcrypto!*", "libc!malloc")
        loaded = account.run(refused, target.pid, "libc.so!mallok")
        never = account.run(refused, static.pid, "libcrypto.so!*")
        assert target.stop().is_well and static.stop().is_well
    assert misspelt == (
        "no function matches 'lib!malloc'\n  cause: no module 'lib' is mapped    "
        "try: near names: libc.so.6; 'lib.so!...' traces what is loaded later"
    )
    assert "no module 'libcrypto' is mapped" in mixed
    assert "near names: malloc" in loaded or "malloc" in loaded
    assert "no module 'libcrypto.so' is mapped" in never


def test_functions_of_the_vdso_are_listed_and_refused_with_the_reason(account: Account) -> None:
    with folder_of(account) as folder, start(build("hot.c"), account=account) as target:
        listed = fentry(account, "list", "-p", target.pid, "[vdso]!*")
        short = fentry(account, "list", "-p", target.pid, "vdso!*gettimeofday")
        words = ["-o", folder / "trace", "-F", "[vdso]!*"]
        done = fentry(account, "record", "-p", target.pid, "-d", "0.05", *words)
        end = target.stop()
    names = [line.partition("\t")[0] for line in listed.out.splitlines()]
    assert any("__vdso_clock_gettime" in name for name in names), listed.out
    assert all(line.endswith("\tthe kernel's own code") for line in listed.out.splitlines())
    assert f"0 traceable + {len(names)} refused = {len(names)}" in listed.err
    assert "__vdso_gettimeofday" in short.out
    assert done.code == 5
    assert f"none of the {len(names)} functions that match can be traced" in done.err
    assert "cause: the kernel's own code" in done.err
    assert end.is_well, end.err
