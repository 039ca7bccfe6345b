"""What a call passes, on whatever stack, arrives as if nobody traced it (hard cases 28 to 43)."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.callbacks import CLOBBERS, calling, words_of
from tests.support.process import start
from tests.support.state import diff, snapshot, text_hash
from tests.support.unprivileged import Account

from fentry.dispatch.ops import Flags, Ops
from fentry.process.target import cpu_flags
from fentry.session import Options, attach
from fentry.trampolines.native import CFunction

WIDE = "avx512f" in cpu_flags()
# Every vector register, MXCSR, the x87 state and all that C may change: and nobody notices.
CLOBBERING = CFunction.compile(CLOBBERS["avx" if "avx" in cpu_flags() else "x87"])
ROOMY = "left=3800", "room=8192"  # a C function needs a stack (docs/design/callbacks.md)
EACH = {
    "f_avx": int("avx" in cpu_flags()), "f_avx512": int(WIDE), "f_complex": 1, "f_handler": 1,
    "f_keeps_all": 1, "f_large": 1, "f_local": 2, "f_long_double": 2, "f_many": 1, "f_mixed": 1,
    "f_ms": 1, "f_nested.0": 1, "f_pair": 1, "f_pieces": 1, "f_sse": 1, "f_thin": 17,
    "f_third": 5, "f_variadic": 1, "f_wide_integer": 1,
}  # fmt: skip


def light(dispatch: str) -> list[Ops]:
    every = [tracing.counting("f_*"), tracing.recording("f_*")]
    return every if dispatch == "sets" else [*every, tracing.counting("f_[a-m]*", "f_thin")]


@pytest.mark.parametrize(("dispatch", "stack_bytes"), [("sets", 48), ("list", 80)])
def test_what_a_call_passes_and_on_which_stack_is_as_untraced(
    account: Account, dispatch: str, stack_bytes: int
) -> None:
    words = (f"left={stack_bytes}", f"wide={WIDE:d}")
    with start(build("conventions.c"), *words, account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, Counter[str], Counter[str]]:
            options = Options(buffer_bytes=128 << 20, dispatch=dispatch)
            with attach(target.pid, options) as session:
                count, _, *_ = [session.register(ops) for ops in light(dispatch)]
                target.go()
                target.await_calls("rounds", 2000)
                rounds = target.hold()["rounds"]
                assert not tracing.dropped(session)
                return rounds, tracing.counted(session, count), tracing.recorded(session)

        rounds, counts, records = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    expected = {name: each * rounds for name, each in EACH.items() if each}
    assert (counts, records) == (expected, expected)


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.SAVE_REGS], ids=["light", "regs"])
def test_a_c_function_that_spoils_everything_is_noticed_by_no_call(
    account: Account, flags: Flags
) -> None:
    words = (*ROOMY, f"wide={WIDE:d}")
    with start(build("conventions.c"), *words, account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, int]:
            with attach(target.pid) as session:
                ops = session.register(calling(CLOBBERING, "f_*", flags=flags))
                target.go()
                target.await_calls("rounds", 500)
                rounds = target.hold()["rounds"]
                return rounds, words_of(session, ops)[0] + session.skipped(ops)

        rounds, calls = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert calls == sum(EACH.values()) * rounds


LIVES = {
    "f_alive": 1, "f_context": 10, "f_hidden": 1, "f_last": 1, "f_late": 1, "f_raw": 1,
}  # fmt: skip


@pytest.mark.parametrize("xom", [0, 1])
def test_functions_that_run_where_little_is_set_up_are_traced(account: Account, xom: int) -> None:
    # All of libc as well: what starts and ends threads, allocates, copies, switches contexts.
    with start(build("lives.c"), f"xom={xom}", account=account, hold=True) as target:
        before = text_hash(target.pid)

        def controller() -> tuple[int, Counter[str], Counter[str], int]:
            with attach(target.pid, Options(buffer_bytes=128 << 20)) as session:
                count = session.register(tracing.counting("*"))
                session.register(tracing.recording("*"))
                target.go()
                target.await_calls("lives", 200)
                lives = target.hold()["lives"]
                counts, records = tracing.counted(session, count), tracing.recorded(session)
                return lives, counts, records, tracing.dropped(session)

        lives, counts, records, lost = account.run(controller)
        assert text_hash(target.pid) == before  # its threads leave heaps of their own mapped
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert {name: counts[name] for name in LIVES} == {n: lives * each for n, each in LIVES.items()}
    for name in ("swapcontext", "malloc", "free", "write", "pthread_create", "makecontext"):
        assert counts[name] >= lives, name
    assert counts["swapcontext"] == 20 * lives
    assert records.total() + lost == counts.total()
