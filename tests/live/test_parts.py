"""Parts of functions (f.cold): traced as what they are, entered in the middle of a call."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from tests.live.test_dlopen import followed
from tests.support import callbacks, tracing
from tests.support.build import build
from tests.support.callbacks import calling, words_of
from tests.support.compiled import addresses
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.dispatch.ops import Flags
from fentry.errors import BadInput, SymbolNotFound
from fentry.session import Options, Session, adopt, attach
from fentry.trampolines.native import CFunction

# Of parts.cpp: how often each is entered in a round of a thread.
ENTERED = {
    "f_leaf.cold": 14, "f_unlikely.cold": 7, "f_throws.cold": 10, "f_cleans.cold": 10,
    "f_catches.cold": 10,
}  # fmt: skip
BIG = Options(buffer_bytes=16 << 20)
HUGE_BYTES = 128 << 20  # nothing is read while the threads are at work


def rounds_of(target: Target, goal: int = 50) -> int:
    """How many rounds its threads made while the gate was open."""
    before = target.counters()["rounds"]
    target.go()
    target.await_calls("rounds", goal)
    return target.hold()["rounds"] - before


def quiet(target: Target) -> dict[str, str]:
    """What the target is like, once it has mapped what it needs to throw."""
    rounds_of(target, 4)
    return snapshot(target.pid)


@pytest.mark.parametrize("dispatch", ["sets", "list"])
def test_every_entry_of_a_part_is_counted_and_recorded(account: Account, dispatch: str) -> None:
    with start(build("parts.cpp"), account=account, hold=True) as target:
        before = quiet(target)

        def controller() -> tuple[int, Counter[str], Counter[str], set[int]]:
            options = Options(buffer_bytes=HUGE_BYTES, dispatch=dispatch)
            with attach(target.pid, options) as session:
                count = session.register(tracing.counting("part:f_*"))
                session.register(tracing.recording("part:f_*"))
                rounds = rounds_of(target)
                batches = list(session.consume())
                parents = {int(p) for b in batches for p in b.records["parent_ip"]}
                keys, ips = session.keys()
                names = tracing.names_of(session, ips.tolist())
                name_of = dict(zip(keys.tolist(), names, strict=True))
                records = Counter(name_of[int(k)] for b in batches for k in b.records["key"])
                assert tracing.dropped(session) == 0
                return rounds, tracing.counted(session, count), records, parents

        rounds, counts, records, parents = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert counts == {name: times * rounds for name, times in ENTERED.items()}
    assert records == counts
    assert parents == {0}


def test_a_glob_means_functions_and_the_whole_name_a_part(account: Account) -> None:
    with start(build("parts.cpp"), account=account, hold=True) as target:

        def controller() -> list[set[str]]:
            with attach(target.pid, tracing.SMALL) as session:
                chosen = []
                for words in (
                    ("f_*",), ("f_leaf", "f_leaf.cold"), ("part:f_leaf",), ("part:*", "!f_[ltu]*"),
                    ("f_*", "part:f_*", "!part:f_[a-e]*", "!f_unlikely"), ("!*!*", "f_leaf.cold"),
                ):  # fmt: skip
                    members = session.functions.match(words, ("main",))
                    names = tracing.names_of(session, session.functions.table.ip[members].tolist())
                    chosen.append({name for name in names if name.startswith("f_")})
                with pytest.raises(SymbolNotFound, match="parts of functions only") as caught:
                    session.functions.match(("f_*.cold",), ())
                assert caught.value.remedy == "part:f_*.cold"
                with pytest.raises(SymbolNotFound, match="functions only"):
                    session.functions.match(("part:work",), ())
                return chosen

        chosen = account.run(controller)
        target.go()
        assert target.stop().is_well
    whole = {"f_leaf", "f_unlikely", "f_throws", "f_cleans", "f_catches"}
    assert chosen == [
        whole,
        {"f_leaf", "f_leaf.cold"},
        {"f_leaf.cold"},
        {"f_cleans.cold", "f_catches.cold"},
        whole - {"f_unlikely"} | {"f_leaf.cold", "f_throws.cold", "f_unlikely.cold"},
        {"f_leaf.cold"},
    ]


# What f_leaf kept in the red zone is its argument, up to 128 bytes below where rsp was.
LEAF = CFunction.compile(
    f"{callbacks.SIGNATURE} {{ {callbacks.PRIVATE} atomic_add(word, 1);"
    " unsigned long *sp = (unsigned long *)regs->sp;"
    " atomic_add(word + 1, sp[-1] == regs->di && sp[-16] == regs->di && regs->ip == ip"
    " && !parent_ip && !((unsigned long)__builtin_frame_address(0) & 15)); }"
)


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.SAVE_REGS | Flags.RECURSION])
def test_a_callback_sees_the_stack_pointer_that_was_interrupted(
    account: Account, flags: Flags
) -> None:
    with start(build("parts.cpp"), account=account, hold=True) as target:
        before = quiet(target)

        def controller() -> tuple[int, tuple[int, ...], Counter[str]]:
            with attach(target.pid, BIG) as session:
                ops = session.register(calling(LEAF, "f_leaf.cold", flags=flags))
                others = session.register(tracing.counting("part:f_*"))
                rounds = rounds_of(target)
                return rounds, words_of(session, ops), tracing.counted(session, others)

        rounds, words, counts = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert words[:2] == (14 * rounds, 14 * rounds)
    assert counts == {name: times * rounds for name, times in ENTERED.items()}


def test_a_part_cannot_be_redirected(account: Account) -> None:
    function = CFunction.compile(callbacks.SUM)
    with start(build("parts.cpp"), account=account) as target:

        def controller() -> None:
            with attach(target.pid, tracing.SMALL) as session:
                ops = calling(function, "f_leaf.cold", flags=callbacks.FULL)
                with pytest.raises(BadInput, match=r"f_leaf.cold is a part of a function"):
                    session.register(ops)
                ops.filter = ("f_throws",)
                session.register(ops)
                with pytest.raises(BadInput, match=r"part of a function"):
                    session.set_filter(ops, ("f_throws", "part:f_throws"))
                session.unregister(ops)

        account.run(controller)
        assert target.stop().is_well


def test_parts_are_adopted_and_detached_by_others(account: Account) -> None:
    with start(build("parts.cpp"), account=account, hold=True) as target:
        before = quiet(target)

        def left_behind() -> None:
            child = os.fork()
            if not child:
                try:
                    session = attach(target.pid, BIG)
                    session.register(tracing.counting("part:f_*"))
                    os.kill(os.getpid(), signal.SIGKILL)
                finally:
                    os._exit(1)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL

        def controller() -> tuple[int, Counter[str]]:
            left_behind()
            rounds = rounds_of(target)
            session: Session = adopt(target.pid)
            rounds += rounds_of(target)
            (ops,) = session.ops.values()
            counts = tracing.counted(session, ops)
            session.close()
            return rounds, counts

        rounds, counts = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        account.run(left_behind)
        rounds_of(target)
        assert "5 sites restored" in account.run(lambda: tracing.detach_as_command(target.pid))
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert counts == {name: times * rounds for name, times in ENTERED.items()}


def test_parts_are_toggled_while_threads_throw(account: Account) -> None:
    with start(build("parts.cpp"), "threads=4", account=account) as target:

        def controller() -> None:
            with attach(target.pid, Options(buffer_bytes=1 << 20, max_stop_s=30)) as session:
                for i in range(20):
                    make = tracing.counting if i % 2 else tracing.recording
                    word = "part:f_[clt]*" if i % 3 else "part:*"  # also those of the unwinder
                    session.unregister(session.register(make(word)))
                    assert target.is_alive and target.bad == 0, i
                target.await_calls("rounds", 20)

        account.run(controller, seconds=600)
        assert target.stop().is_well


def test_a_stripped_program_lists_the_same_parts(account: Account) -> None:
    cold = {v for name, v in addresses(build("parts.cpp")).items() if name.endswith(".cold")}
    with start(build("parts.cpp", stripped=True), account=account, hold=True) as target:

        def controller() -> tuple[int, Counter[int]]:
            with attach(target.pid, BIG) as session:
                own = session.functions.modules[0]
                ops = session.register(tracing.counting(f"part:{own.name}!*"))
                rounds = rounds_of(target)
                ips, calls = session.counts(ops)
                pairs = zip(ips.tolist(), calls.tolist(), strict=True)
                return rounds, Counter({ip - own.bias: n for ip, n in pairs if n})

        rounds, calls = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert calls.keys() == cold
    assert sorted(calls.values()) == [n * rounds for n in sorted(ENTERED.values())]


def test_parts_of_a_library_loaded_later_are_traced(account: Account) -> None:
    words = f"library={build('libpart.c')}", "keep=1"
    with start(build("dso.c"), *words, account=account, hold=True) as target:

        def controller() -> tuple[int, int]:
            with attach(target.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting("part:*"))
                target.go()
                followed(session, target, "libpart")
                made = target.hold()["f_library"]
                counted = tracing.counted(session, ops)["f_library.cold"]
                target.go()
                target.await_calls("f_library", 1000)
                made = target.hold()["f_library"] - made
                return made, tracing.counted(session, ops)["f_library.cold"] - counted

        made, counted = account.run(controller)
        target.go()
        end = target.stop()
    assert made == counted >= 1000
    assert end.is_well, end.err
