"""One attach, as its users see it: what it does is done by the objects that it is made of."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.counters import Counters
from fentry.dispatch.detach import undo
from fentry.dispatch.followed import Followed
from fentry.dispatch.ops import Ops
from fentry.dispatch.threads import ThreadFilter
from fentry.dispatch.turns import Turns
from fentry.errors import BadInput
from fentry.instance import LONGEST_NAME, Instance
from fentry.process.proc import command_of, possible_cpus
from fentry.process.start import end, start
from fentry.process.target import Halt, Target
from fentry.region.region import Region
from fentry.ring.buffer import Geometry
from fentry.ring.reader import Batch, Stats
from fentry.session.adopting import adopt_ops, adopt_region
from fentry.session.attaching import Attached, attach_region
from fentry.session.changes import Changes
from fentry.session.known import Known, look_at_modules, traits_of
from fentry.session.leaving import Leaving
from fentry.session.life import Life
from fentry.session.memory import OpsMemory
from fentry.session.options import LIST, Options
from fentry.session.place import Place
from fentry.session.transaction import Transaction
from fentry.sites.functions import Functions
from fentry.symbols.link_map import LinkMap
from fentry.symbols.module import Module

if TYPE_CHECKING:
    from fentry.trampolines.direct import DirectCode

_SPARE_SITES = 1 << 15  # of libraries that are loaded later; memory that is not touched


class Session:
    """fentry attached to one process; leaving the block detaches and restores everything but what
    PERMANENT ops need."""

    # Made in this order while it attaches; each knows of those above it.
    _place: Place
    _known: Known
    _memory: OpsMemory
    _transaction: Transaction
    _changes: Changes
    _leaving: Leaving

    def __init__(
        self,
        pid: int,
        options: Options | None = None,
        *,
        held: int = 0,
        adopting: bool = False,
    ) -> None:
        self.pid = pid
        self.options = options or Options()
        self.options.refuse_unknown_dispatch()
        self.target = Target(pid, max_stop_s=self.options.max_stop_s, is_ours=bool(held))
        self.ops: dict[int, Ops] = {}
        turns = Turns(self.target, self.owned, self._look_again)
        self._place = Place(self.target, turns, is_held=bool(held))
        self._hold = ExitStack()
        try:
            self.options.geometry()  # what makes no sense is refused before anything is touched
            if held:
                self._hold.enter_context(self.target.stopped(held=held))
            self.target.others = turns.other_pids
            turns.patiently(self.target.sweep)
            if not adopting:
                # What dead controllers left, or a parent's tracing after a fork. First: the
                # analysis may have to read memory.
                turns.patiently(partial(undo, self.target, from_living=False))
            found = look_at_modules(self.target)
            turns.patiently(partial(self._adopt if adopting else self._attach, found))
            self._life = Life(self._place)
        except BaseException:
            if held:
                os.kill(pid, signal.SIGKILL)  # it has not begun, and nobody is left to let it
            self._hold.close()
            self._place.give_up()
            self.target.close()
            raise

    def _attach(self, found: tuple[Functions, LinkMap]) -> None:
        rows = 1 << int(len(found[0].table) + _SPARE_SITES).bit_length()
        attached = attach_region(self._place, self, self.options, rows)
        self._consist_of(attached, found)
        if attached.has_company:
            try:
                self._known.read()
            finally:
                self._place.turns.end()

    def _adopt(self, found: tuple[Functions, LinkMap]) -> None:
        attached = adopt_region(self._place, self, self.options)
        self._consist_of(attached, found)
        adopt_ops(self._place, self._known, self._memory, self._transaction, attached.tables)

    def _consist_of(self, attached: Attached, found: tuple[Functions, LinkMap]) -> None:
        place, traits = self._place, traits_of(attached.cpu, found[0])
        lists_all = self.options.dispatch == LIST
        known = self._known = Known(place, self.ops, found, traits, lists_all=lists_all)
        memory = self._memory = OpsMemory(place, known, attached.instances, attached.counters)
        transaction = self._transaction = Transaction(place, known, memory)
        changes = self._changes = Changes(place, known, memory, transaction)
        self._leaving = Leaving(place, known, memory, transaction, changes, self._hold)

    def _look_again(self) -> None:
        self._known.look_again()

    def owned(self, *, current: bool = True) -> AbstractContextManager[Halt]:
        """The target stopped, and what we have there still ours. Raises LockError, TargetGone,
        StopTimeout; Outdated unless what is known of sites and code is `current`."""
        return self._known.owned(current=current)

    # 1. Beginning and end

    def release(self) -> None:
        """Let a started command run (it is held so that its constructors are traced, too). Raises
        LockError in another thread than that which started it."""
        self.target.refuse_other_thread()
        self._hold.close()
        self._place.is_held = False
        self.target.stop_durations_ns.clear()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def detach(self) -> None:
        """Restore the text and unmap everything. Safe to call again, and to be repeated when it
        failed. Raises LockError while there are PERMANENT ops, and changes nothing."""
        self._leaving.detach()

    def leave(self) -> None:
        """Detach but for PERMANENT ops: these go on, without a controller, until somebody adopts
        them; all others are unregistered. Without such ops it is detach()."""
        self._leaving.leave()

    def close(self) -> None:
        """Leave, and give descriptors back. Counts and records can still be read afterwards."""
        try:
            self.leave()
        finally:
            if self._life.close():
                self.target.close()

    @property
    def is_held(self) -> bool:
        """Whether it is of a command that has not been let run yet."""
        return self._place.is_held

    @property
    def goes_on(self) -> bool:
        """After leave(): PERMANENT ops are in place."""
        return self._leaving.goes_on

    @property
    def parked_bytes(self) -> int:
        """After detach(): memory that had to stay in the target."""
        return self._leaving.parked_bytes

    @property
    def foreign(self) -> tuple[int, ...]:
        """After detach(): ips of sites that somebody else had changed, and that were left alone."""
        return self._leaving.foreign

    @property
    def has_ended(self) -> bool:
        """Whether a command that run() started has ended in our hands, inside a stop."""
        return self.target.exit_status is not None

    def exit_code(self) -> int:
        """Wait for a command that run() started; its exit code as a shell gives it: 128 + n when
        signal n killed it."""
        code = os.waitstatus_to_exitcode(self._life.exit_status())
        return 128 - code if code < 0 else code

    # 2. Ops

    def register(self, ops: Ops) -> Ops:
        """Let `ops` see its functions from now on; returns it with its id.

        A library that a word of its filter names with ".so" may be loaded later (not_loaded).
        Raises SymbolNotFound, BadInput, PatchError, LockError, StopTimeout; then nothing changed.
        """
        return self._changes.register(ops)

    def unregister(self, ops: Ops) -> None:
        """Take `ops` away; the functions that only it wanted are as if never traced."""
        self._refuse_unregistered(ops)
        self._changes.unregister([ops])

    @property
    def enabled(self) -> bool:
        """The kernel's ftrace_enabled: False puts the text of all functions back while the ops stay
        registered, True lets them see their functions again. An adopter finds it as it was left.

        Setting it raises LockError while there are PERMANENT ops, and as register().
        """
        return self._transaction.enabled

    @enabled.setter
    def enabled(self, on: bool) -> None:
        self._changes.switch(on)

    def set_filter(self, ops: Ops, wanted: Sequence[str], notrace: Sequence[str] = ()) -> None:
        """Change which functions registered ops see, in one transaction."""
        self._changes.set_filter(ops, wanted, notrace)

    def set_threads(self, ops: Ops, threads: ThreadFilter) -> None:
        """Change which threads registered ops see, for every call that begins from now on.

        Nothing is stopped, but where a first filter comes or the last goes: then `ops.id` is a new
        one. Raises BadInput, and as register(); then nothing changed.
        """
        self._refuse_unregistered(ops)
        self._changes.set_threads(ops, threads)

    def modify_direct(self, ops: Ops, code: DirectCode) -> None:
        """Let DIRECT ops call other code, in one transaction: every call of every function goes to
        the old or the new one. The variables of the code begin anew; `ops.id` is a new one.

        Raises BadInput, and as register(); then nothing changed.
        """
        self._refuse_unregistered(ops)
        self._changes.modify_direct(ops, code)

    def _refuse_unregistered(self, ops: Ops) -> None:
        if self.ops.get(ops.id) is not ops:
            raise BadInput("these ops are not registered")

    def follow_forks(self) -> None:
        """See which children were forked, and which have gone: `followed.living`. To be called
        every 20 ms; more often costs nothing. Nothing is stopped, and children record without."""
        if self.followed is not None:
            self.followed.look()

    def follow_threads(self) -> None:
        """Take threads that have ended off the lists of all ops, and add those that have got a name
        of theirs. To be called every 10 ms; more often costs nothing."""
        self._memory.threads.look()

    def follow_modules(self) -> list[Module]:
        """Trace what has been loaded since by the filters of all ops; the new modules.

        Nothing is done, and nothing of the target but a list read, where nothing was loaded or
        unloaded. Raises as register(); then it may be tried again.
        """
        if self.followed is not None and not self.has_process():
            return []  # only children are left, and they keep what they were forked with
        return self._changes.follow_modules()

    def not_loaded(self, ops: Ops, *, ever: bool = False) -> dict[str, list[str]]:
        """The libraries that the filter of `ops` names with ".so" and that are not loaded, or with
        `ever` never were, and near names of modules that are. Their functions are traced once
        follow_modules() has found them."""
        names = self.functions.not_loaded(ops.filter, ever=ever)
        return {name: self.functions.symbols.near_modules(name) for name in names}

    def unmatched_names(self, ops: Ops) -> list[str]:
        """Those of the names of threads that an ops wants that no thread has had yet."""
        seen = self._memory.threads.get(ops.id)
        return sorted(seen.unmatched) if seen is not None else []

    # 3. Instances

    def instance(
        self, name: str, options: Options | None = None, *, clock: str | None = None
    ) -> Instance:
        """The instance of this name; made, with a ring by `options`, if there is none yet. `clock`
        is that of `options` if it is not given.

        Raises BadInput for a name that is empty or longer than 24 bytes, for a clock that is not
        known, or when 64 rings exist.
        """
        for one in self.instances.values():
            if one.name == name and name:
                return one
        if not name or len(name.encode()) > LONGEST_NAME or "\0" in name:
            raise BadInput(f"{name!r} is no name of an instance", remedy="1 to 24 bytes")
        options = options or self.options
        options = options if clock is None else replace(options, clock=clock)
        return self._memory.add_instance(self, name, options)

    def remove_instance(self, instance: Instance) -> None:
        """Unregister its ops and give its ring back. Raises BadInput for the top instance,
        PatchError when a thread is still in a trampoline: then its ops are gone, and it may be
        tried again."""
        if self.instances.get(instance.number) is not instance or instance is self.top:
            raise BadInput("this instance cannot be removed")
        for ops in instance.ops:
            self.unregister(ops)
        self._memory.remove_instance(instance)

    @property
    def instances(self) -> dict[int, Instance]:
        """All of them by number."""
        return self._memory.instances

    @property
    def top(self) -> Instance:
        """The instance of whoever names none."""
        return self._memory.top

    # 4. Reading

    @property
    def functions(self) -> Functions:
        """The functions of the target; others once something was loaded."""
        return self._known.functions

    @property
    def region(self) -> Region:
        """What fentry has mapped in the target."""
        return self._place.region

    @property
    def followed(self) -> Followed | None:
        """The children of the process, where they are followed."""
        return self._place.followed

    @property
    def counters(self) -> Counters | None:
        """While an ops has counted."""
        return self._memory.counters

    def counts(self, ops: Ops) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """(ips, calls) of counting ops: calls counted since registration, target addresses."""
        return self._memory.counts(ops)

    def private(self, ops: Ops) -> bytes:
        """The private memory of calling ops, as it is in the target now. Raises BadInput when they
        are not registered any more."""
        self._refuse_unregistered(ops)
        return self._known.natives.private(ops.id)

    def data(self, ops: Ops) -> bytes:
        """The variables of the C function or direct code of ops, as they are in the target now,
        padded to 64 bytes. Raises BadInput as private()."""
        self._refuse_unregistered(ops)
        return self._known.natives.data(ops.id)

    def skipped(self, ops: Ops) -> int:
        """Calls of guarded ops (RECURSION) that were not made because one ran already. Raises
        BadInput as private()."""
        self._refuse_unregistered(ops)
        return self._known.natives.dropped(ops.id)

    def consume(self, *, final: bool = False) -> Iterator[Batch]:
        """Records of the top instance committed up to now, by CPU and position; each is given once.

        `final` skips what was reserved and never committed: after detach, or when the target
        has died.
        """
        return self.top.consume(final=final)

    @property
    def stats(self) -> Stats | None:
        """What became of the calls recorded into the top instance; None when no ops records."""
        return self.top.stats

    @property
    def fill(self) -> float:
        """How full the top instance's ring is, 0 to 1."""
        return self.top.fill

    @property
    def ring(self) -> Geometry:
        """The geometry of the top instance's ring. Raises BadInput when no ops records."""
        return self.top.ring

    @property
    def nr_cpus(self) -> int:
        """Possible CPUs: how many buffers the ring has."""
        return possible_cpus()

    @property
    def command(self) -> str:
        """The target's command line."""
        return command_of(self.pid)

    def keys(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Site keys that records may hold, and the ips they stand for."""
        return self._known.keys()

    # 5. Whether something is left to see

    @property
    def pidfd(self) -> int:
        """Of the process; -1 after close()."""
        return self._life.pidfd

    def has_writers(self) -> bool:
        """Whether anybody is left who may record."""
        return self._life.has_writers()

    def nobody_writes(self) -> bool:
        """Proof that nobody is in the middle of a record that began before: each process was seen
        outside of all trampolines, in turn. Raises LockError, TargetGone, StopTimeout."""
        return self._life.nobody_writes()

    def why_over(self) -> str:
        """Why this session can see nothing any more, in words for people; "" while it can."""
        return self._life.why_over()

    @property
    def wakeups(self) -> list[int]:
        """Descriptors that become readable when something ends that this session looks at; none
        that is so for ever."""
        return self._life.wakeups

    def has_process(self) -> bool:
        """Whether the process itself still runs what was attached to; its children may outlive
        that."""
        return self._life.has_process()

    def was_detached(self) -> bool:
        """Whether another controller has removed or taken the region."""
        return self._place.was_detached()


def attach(pid: int, options: Options | None = None) -> Session:
    """Attach to a live process, beside other controllers that it may have. Raises TargetGone,
    AttachError, LockError, StopTimeout."""
    return Session(pid, options)


def adopt(pid: int, options: Options | None = None) -> Session:
    """Go on with what a dead controller left: its ops are in `session.ops`, its ring is read on.

    Of several dead ones, that of one. Raises TargetGone when there is nothing to adopt, LockError
    when every controller lives.
    """
    return Session(pid, options, adopting=True)


def run(command: Sequence[str], options: Options | None = None) -> Session:
    """Start a command, held before its constructors run; release() lets it go."""
    pid = start(command)
    try:
        return Session(pid, options, held=pid)
    except BaseException:
        end(pid)
        raise
