"""One controller of tests/chaos_together.py: what it does between two moments at the gate."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace

from fentry.dispatch.controllers import Outdated
from fentry.dispatch.ops import Callback, Flags, Ops
from fentry.dispatch.threads import ThreadFilter
from fentry.errors import FentryError, LockError, PatchError, StopTimeout
from fentry.instance import Instance
from fentry.process.proc import list_tids
from fentry.ring.layout import MODE_DISCARD, MODE_OVERWRITE
from fentry.session import LIST, SETS, Options, Session, adopt, attach
from fentry.trampolines.direct import DirectCode
from fentry.trampolines.native import CFunction
from tests.chaos import drain, draw_words, reached_of
from tests.support import tracing
from tests.support.beside import Line
from tests.support.callbacks import FULL
from tests.support.process import Target

MOST_OPS = 5  # so that with those of all controllers functions go to the list and come back
LIBRARY = "f_library"  # comes and goes with its module: ops that are held to account leave it out
INSTANCES = ("", "order", "small")


@dataclass(frozen=True, slots=True)
class Code:
    """What ops call; made once, as gcc takes its time."""

    function: CFunction
    direct: DirectCode


def works(line: Line, seed: int, target: Target, code: Code) -> None:
    """A controller that is told when a window opens, how long to act, what was made in it."""
    one = Controller(random.Random(seed), target, code)
    line.say(one.how)
    while True:
        told = line.hear(3600)
        if told == "leave":
            one.leave()
            line.say(None)
            return
        if told == "open":
            line.say(one.open())
        elif told[0] == "act":
            line.say(one.act(told[1]))
        else:
            line.say(one.account(told[1]))


class Controller:
    """A session, the ops of it that are held to account, and what it may do with the others."""

    def __init__(self, draw: random.Random, target: Target, code: Code) -> None:
        self._draw, self._target, self._code = draw, target, code
        self._options = Options(
            buffer_bytes=draw.choice((1 << 16, 1 << 20)),
            mode=draw.choice((MODE_DISCARD, MODE_OVERWRITE)),
            record_bytes=draw.choice((16, 24)),
            max_stop_s=10,
            dispatch=draw.choice((SETS, SETS, LIST)),
            clock=draw.choice(("tsc", "percpu-counter")),
        )
        self._kept: list[Ops] = []
        self._steady: list[Instance] = []
        self._before: dict[int, Counter[str]] = {}
        self._reached: dict[int, int] = {}
        self._done: list[str] = []
        self._session: Session
        self.how = "attached"
        if draw.random() < 0.6:
            try:
                self._session = adopt(target.pid, self._options)
                self.how = "adopted"
                return
            except FentryError:  # nothing to adopt, or nothing whole
                pass
        try:
            self._session = attach(target.pid, self._options)
        except LockError as error:
            if "PERMANENT" not in str(error):
                raise
            self._session = adopt(target.pid, self._options)  # their owner is dead
            self.how = "adopted"

    def leave(self) -> None:
        """Go, and leave what is PERMANENT."""
        self._session.close()

    def open(self) -> None:
        """At the gate: which ops are kept, and what they have seen so far."""
        session, draw = self._session, self._draw
        self._kept, self._steady, self._before, self._reached = [], [], {}, {}
        if session.was_detached():
            return
        while len(session.ops) < 2 and self._register():
            pass
        if draw.random() < 0.1:
            self._switch()
        for name in INSTANCES:
            instance = self._instance(name)
            ours = instance.ops
            exact = all(self._is_exact(ops) for ops in ours)
            if exact and ours and instance.tracing_on and draw.random() < 0.6:
                self._steady.append(instance)
                self._kept += ours
                drain(instance)
                self._reached[instance.number] = reached_of(instance)
        for ops in session.ops.values():
            if ops.callback is not Callback.RECORD and self._is_exact(ops) and draw.random() < 0.6:
                self._kept.append(ops)
                self._before[ops.id] = self._seen(ops)

    def _is_exact(self, ops: Ops) -> bool:
        if LIBRARY not in ops.notrace:
            return False
        return not ops.threads or ops.threads == self._not_main()

    def _not_main(self) -> ThreadFilter:
        return ThreadFilter(notrace_tids=frozenset({self._target.pid}))  # it calls nothing

    def account(self, made: Counter[str]) -> tuple[int, int] | None:
        """At the gate: hold what the kept ops saw against what was made; (ops, calls), None when
        everything was detached."""
        session = self._session
        if session.was_detached():
            session.close()
            return None
        total = 0
        for number, before in self._before.items():
            ops = session.ops[number]
            wanted = Counter({name: made[name] for name in self._functions(ops) if made[name]})
            found = self._seen(ops) - before
            if ops.callback is not Callback.COUNT:
                wanted = Counter({"": wanted.total()} if wanted.total() else {})
            assert found == wanted, self._story(ops, found, wanted)
            total += wanted.total()
        for instance in self._steady:
            drain(instance)
            ours = [ops for ops in self._kept if ops.instance == instance.number
                    and ops.callback is Callback.RECORD]  # fmt: skip
            calls = sum(made[name] for ops in ours for name in self._functions(ops))
            reached = reached_of(instance) - self._reached[instance.number]
            assert reached == calls, self._story(instance.name, reached, calls)
            total += calls
        return len(self._kept), total

    def _story(self, what: object, found: object, wanted: object) -> str:
        every = [
            (o.id, o.instance, o.callback.name, o.text, str(o.flags), o in self._kept)
            for o in self._session.ops.values()
        ]
        words = what.text if isinstance(what, Ops) else what
        return f"{words}: {found}, made {wanted}; {every}; {self.how} {' '.join(self._done)}"

    def _seen(self, ops: Ops) -> Counter[str]:
        session = self._session
        if ops.callback is Callback.COUNT:
            found = tracing.counted(session, ops)
            return Counter({name: found[name] for name in found if name.startswith("f_")})
        memory = session.private(ops) if ops.callback is Callback.CALL else session.data(ops)
        return Counter({"": int.from_bytes(memory[:8], "little")})

    def _functions(self, ops: Ops) -> set[str]:
        table = self._session.functions.table
        ips = table.ip[ops.members & table.traceable].tolist()
        return {name for name in tracing.names_of(self._session, ips) if name.startswith("f_")}

    # -- what it may do --------------------------------------------------------------------------

    def act(self, seconds: float) -> list[str]:
        """Anything with the ops that are not kept; what was done."""
        end = time.monotonic() + seconds
        self._done = [self.how]
        while time.monotonic() < end and not self._session.was_detached():
            try:
                self._done.append(self._act())
            except (StopTimeout, Outdated) as error:
                self._done.append(f"refused-{type(error).__name__}")
            except FentryError:
                if not self._session.was_detached():
                    raise
        return self._done[1:]

    def _act(self) -> str:
        draw, session = self._draw, self._session
        loose = [ops for ops in session.ops.values() if ops not in self._kept]
        choices = ["register", "consume", "follow", "tracing_on", "instance", "keys"]
        choices += ["unregister", "unregister", "filter", "threads", "modify"] if loose else []
        what = draw.choice(choices)
        if what == "register":
            if len(session.ops) >= MOST_OPS:
                return "full"
            return "register" if self._register() else "refused-register"
        if what == "unregister":
            session.unregister(draw.choice(loose))
        elif what == "filter":
            return self._filter(draw.choice(loose))
        elif what == "threads":
            return self._threads(draw.choice(loose))
        elif what == "modify":
            direct = [ops for ops in loose if ops.callback is Callback.DIRECT]
            if not direct:
                return "nothing"
            session.modify_direct(direct[0], self._code.direct)
        elif what == "consume":
            drain(self._instance(draw.choice(INSTANCES)))
        elif what == "follow":
            session.follow_modules()
            session.follow_threads()
        elif what == "keys":
            session.keys()
        elif what == "tracing_on":
            instance = self._instance(draw.choice(INSTANCES))
            if instance in self._steady:
                return "nothing"
            instance.tracing_on = draw.random() < 0.7
        elif what == "instance":
            return self._remove()
        return what

    def _instance(self, name: str) -> Instance:
        if not name:
            return self._session.top
        clock = "percpu-counter" if name == "order" else "tsc"
        size = 1 << 15 if name == "small" else self._options.buffer_bytes
        options = replace(self._options, buffer_bytes=size, clock=clock)
        return self._session.instance(name, options)

    def _remove(self) -> str:
        instance = self._instance(self._draw.choice(INSTANCES[1:]))
        if instance in self._steady:
            return "nothing"
        try:
            self._session.remove_instance(instance)
        except (PatchError, LockError):
            if self._session.was_detached():
                raise
            return "refused-remove"
        return "remove"

    def _filter(self, ops: Ops) -> str:
        before = ops.filter, ops.notrace
        try:
            self._session.set_filter(ops, *self._words())
        except PatchError:
            if self._session.was_detached() or not (ops.redirects or self._others_redirect()):
                raise
            assert (ops.filter, ops.notrace) == before
            return "refused-filter"
        return "filter"

    def _threads(self, ops: Ops) -> str:
        if ops.callback is Callback.DIRECT:
            return "nothing"
        tids = self._draw.sample(list_tids(self._target.pid), 1)
        wanted = self._draw.choice(
            (ThreadFilter(), self._not_main(), ThreadFilter(tids=frozenset(tids)))
        )
        try:
            self._session.set_threads(ops, wanted)
        except ValueError:  # the thread has ended
            return "refused-threads"
        return "threads"

    def _switch(self) -> None:
        # All calls are seen again before the gate opens.
        session = self._session
        try:
            session.enabled = False
        except LockError:
            assert session.enabled
            return
        session.enabled = True

    def _others_redirect(self) -> bool:
        return any(ops.redirects for ops in self._session._known.others.ops.values())

    def _register(self) -> bool:
        draw, session = self._draw, self._session
        kinds = ("record", "count", "call", "ipmodify", "direct")
        kind = draw.choices(kinds, (6, 3, 3, 1, 1))[0]
        wanted, notrace = self._words()
        flags = Flags.PERMANENT if draw.random() < 0.05 else Flags.NONE
        threads = self._not_main() if draw.random() < 0.2 else ThreadFilter()
        if kind == "record":
            ops = Ops(Callback.RECORD, wanted, notrace, flags, threads=threads)
            ops.instance = self._instance(draw.choice(INSTANCES)).number
            if any(ops.instance == one.number for one in self._steady):
                return False
        elif kind == "count":
            ops = Ops(Callback.COUNT, wanted, notrace, flags, threads=threads)
        elif kind == "direct":
            ops = Ops(Callback.DIRECT, wanted, notrace, flags, function=self._code.direct)
        else:
            flags |= FULL if kind == "ipmodify" else draw.choice((Flags.NONE, Flags.RECURSION))
            ops = Ops(Callback.CALL, wanted, notrace, flags, threads=threads,
                      function=self._code.function, private=bytes(32))  # fmt: skip
        count = len(session.ops)
        try:
            session.register(ops)
        except PatchError:
            if isinstance(sys.exception(), Outdated) or session.was_detached():
                raise
            assert ops.id == 0 and len(session.ops) == count
            return False
        return True

    def _words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return draw_words(self._draw, self._session, also_not=LIBRARY)
