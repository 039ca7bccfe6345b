"""The promises of ops that come, change and go."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from itertools import permutations
from pathlib import Path

from fentry.dispatch.ops import Ops
from fentry.errors import FentryError
from fentry.session import Options, Session, attach
from tests.promises.registry import PATIENT_S, Run, promise
from tests.support import tracing
from tests.support.build import build
from tests.support.process import Target as Program
from tests.support.process import start
from tests.support.state import diff, snapshot

_FIRST_CYCLES = 100


def _own_kb(pid: int) -> int:
    # RssAnon, proc_pid_status(5): without the ring, whose size is in `region`
    match = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert match is not None
    return int(match[1])


def _memory_kb(session: Session, pid: int) -> dict[str, int]:
    mapped = sum(segment.bytes for segment in session.region.segments) >> 10
    return {"target": _own_kb(pid), "region": mapped, "controller": _own_kb(os.getpid())}


@promise("dynamic-cycles-bounded", full=100_000, unit="register, change, unregister", least=300)
def dynamic_cycles_bounded(run: Run) -> str:
    """Memory after so many ops came and went is at most twice that after 100."""
    with start(build("hot.c"), "threads=4", "pause_us=200", account=run.account) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[dict[str, int], dict[str, int]]:
            first: dict[str, int] = {}
            with attach(target.pid, Options(1 << 20, max_stop_s=PATIENT_S)) as session:
                session.register(tracing.recording("f_plain", "f_frame"))
                for i in range(run.count):
                    make = tracing.counting if i % 2 else tracing.recording
                    ops = session.register(make("f_*nop*", "f_plain"))
                    session.set_filter(ops, ("f_lea", "f_plain"))
                    session.unregister(ops)
                    if i % 16 == 0:
                        tracing.recorded(session)
                        assert target.is_alive and target.bad == 0, i
                    if i + 1 == _FIRST_CYCLES:
                        first = _memory_kb(session, target.pid)
                return first, _memory_kb(session, target.pid)

        first, last = run.account.run(controller, seconds=36_000)
        assert diff(before, snapshot(target.pid)) == []
        end = target.stop()
    assert end.is_well, end.err
    for whose, kb in first.items():
        assert last[whose] <= 2 * kb, (whose, first, last)
    return ", ".join(f"{whose} {kb} to {last[whose]} KB" for whose, kb in first.items())


@promise("controllers-fight", full=500, unit="fights of two, one of them killed")
def controllers_fight(run: Run) -> str:
    """Two controllers want the same functions and one is killed at any moment: the target is
    right, the other has what it wants, and who comes next as well."""
    with start(build("hot.c"), "threads=3", "pause_us=200", account=run.account) as target:
        before = snapshot(target.pid)
        outcomes: Counter[str] = Counter()
        chance = random.Random(11)
        begun = time.monotonic()
        run.account.run(tracing.full_cycle, target.pid)
        cycle_s = time.monotonic() - begun
        for i in range(run.count):
            children = [_fighter(run, target.pid) for _ in range(2)]
            time.sleep(chance.uniform(0.0, 1.5 * cycle_s))
            os.kill(children[i % 2], signal.SIGKILL)
            for child in children:
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                outcomes[{0: "traced", -9: "killed"}.get(code, f"? {code}")] += 1
            assert target.is_alive and target.bad == 0, i
            run.account.run(tracing.full_cycle, target.pid)  # whatever was left
            assert diff(before, snapshot(target.pid)) == [], i
        end = target.stop()
    assert end.is_well, end.err
    assert outcomes.keys() <= {"traced", "killed"}, outcomes
    return f"{dict(outcomes)}"


def _fighter(run: Run, pid: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        run.account.become()
        for _ in range(2):
            tracing.full_cycle(pid)
        code = 0
    except FentryError as error:
        code = error.exit_code
    finally:
        os._exit(code)


_BODIES = ("record", "record16", "count", "count again")
_ORDERS = [(c, g) for c in permutations(range(4)) for g in permutations(range(4))]


@promise("every-order", full=len(_ORDERS), unit="orders of coming and going", least=4)
def every_order(run: Run) -> str:
    """Four bodies come to a function and go from it in every order, while threads call it: each
    has seen exactly the calls of its time."""
    stride = max(1, len(_ORDERS) // run.count)
    orders = _ORDERS[::stride][: run.count]
    calls = 0
    for dispatch in ("sets", "list"):
        with start(build("hot.c"), "threads=3", account=run.account, hold=True) as target:
            before = snapshot(target.pid)

            def controller(target: Program = target, dispatch: str = dispatch) -> int:
                options = Options(8 << 20, max_stop_s=PATIENT_S, dispatch=dispatch)
                with attach(target.pid, options) as session:
                    return sum(_come_and_go(session, target, *order) for order in orders)

            calls += run.account.run(controller, seconds=36_000)
            assert diff(before, snapshot(target.pid)) == []
            target.go()
            end = target.stop()
        assert end.is_well, end.err
    return f"{calls} calls, each counted by exactly who was there"


def _come_and_go(
    session: Session, target: Program, coming: tuple[int, ...], going: tuple[int, ...]
) -> int:
    short = session.instance("short", Options(buffer_bytes=8 << 20, record_bytes=16))
    there: dict[int, Ops] = {}
    made = 0
    for step in (*((True, one) for one in coming), *((False, one) for one in going)):
        comes, one = step
        if comes:
            make = tracing.recording if one < 2 else tracing.counting
            there[one] = (short if one == 1 else session).register(make("f_lea"))
        else:
            session.unregister(there.pop(one))
        made += _look(session, target, there)
    return made


def _look(session: Session, target: Program, there: dict[int, Ops]) -> int:
    # Everybody who is there has seen the calls that are made now, and nobody else any.
    begun = target.counters()["f_lea"]
    counted = {one: tracing.counted(session, there[one])["f_lea"] for one in there if one >= 2}
    target.go()
    target.await_calls("f_lea", 50)
    made = target.hold()["f_lea"] - begun
    rings = session.top, session.instance("short")
    for one, ring in enumerate(rings):
        seen = sum(len(batch.records) for batch in ring.consume())
        stats = ring.stats
        assert stats is None or not stats.dropped_events.any()
        assert seen == (made if one in there else 0), (_BODIES[one], seen, made, sorted(there))
    for one, earlier in counted.items():
        seen = tracing.counted(session, there[one])["f_lea"] - earlier
        assert seen == made, (_BODIES[one], seen, made, sorted(there))
    return made
