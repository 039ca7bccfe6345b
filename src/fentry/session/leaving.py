"""Leaving a target: all is put back, or, where others are at work there, what is ours alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial

from fentry.dispatch.detach import remove_region, restore_text
from fentry.dispatch.ops import Ops
from fentry.dispatch.permanent import permanent, refuse_permanent
from fentry.dispatch.turns import PAUSE_S
from fentry.errors import FentryError, LockError, TargetGone
from fentry.region.layout import Kind
from fentry.region.registry import find_registry
from fentry.session.changes import Changes
from fentry.session.known import Known
from fentry.session.memory import OpsMemory
from fentry.session.place import Place
from fentry.session.transaction import Transaction
from fentry.sites.patcher import SiteMismatchError

_LEAVE_LIMIT_S = 5.0
_LONGEST_PAUSE_S = 0.25


class Leaving:
    """detach() and leave() of a session, and what became of it: bytes that had to stay, ips of
    sites that somebody else had changed, whether PERMANENT ops go on. `hold` is what keeps a
    command from beginning."""

    def __init__(
        self,
        place: Place,
        known: Known,
        memory: OpsMemory,
        transaction: Transaction,
        changes: Changes,
        hold: ExitStack,
    ) -> None:
        self._place = place
        self._known = known
        self._memory = memory
        self._transaction = transaction
        self._changes = changes
        self._hold = hold
        self._is_over = False
        self.parked_bytes = 0
        self.foreign: tuple[int, ...] = ()
        self.goes_on = False

    def detach(self) -> None:
        """As Session.detach."""
        if self._is_over:
            return
        refuse_permanent(self._place.pid, self._known.ops.values(), "cannot detach")
        self._place.target.refuse_other_thread()
        self._hold.close()
        self._place.silence()
        try:
            if self._place.target.is_alive():
                self._undo()
        except TargetGone:
            pass  # nothing is left that could be restored
        self._place.end_children()  # also those forked before the region was unmapped
        self._forget()

    def leave(self) -> None:
        """As Session.leave."""
        ops = self._known.ops
        if self._is_over or not permanent(ops.values()):
            self.detach()
            return
        self._place.target.refuse_other_thread()
        self._hold.close()
        try:
            if self._place.target.is_alive() and not self._place.was_detached():
                kept = permanent(ops.values())
                self._changes.unregister([one for one in ops.values() if one not in kept])
                with self._known.owned(current=False):
                    self._place.region.owners.disown(self._place.owner)
                self.goes_on = True
        except TargetGone:
            pass
        self._forget()

    def _forget(self) -> None:
        self._is_over = True
        for ops in self._known.ops.values():
            self._memory.let_go(ops)
        self._known.ops.clear()

    def _undo(self) -> None:
        with suppress(FentryError):
            self._place.sweep()
        if self._place.turns.patiently(self._restore_alone):
            return
        try:
            self._leave_others()
        except LockError:
            if not self._place.was_detached():  # by another controller
                raise

    def _restore_alone(self) -> bool:
        # Everything is undone, unless others have something there.
        place = self._place
        with place.target.stopped(bounded=False) as halt:
            mapping = find_registry(halt.maps)
            if mapping is None or mapping.start != place.region.registry.address:
                return True  # another controller detached it
            if place.was_detached():
                return True  # another controller has it
            self._known.learn_keys()
            if not place.is_alone():
                return False
            self.foreign = restore_text(halt, place.region).foreign
        place.end_children()  # while the region tells of them, whoever dies meanwhile
        self.parked_bytes = remove_region(place.target, place.region)
        return True

    def _leave_others(self) -> None:
        # Others stay: our ops go as if unregistered, then what was ours alone.
        ops = list(self._known.ops.values())
        self._known.ops.clear()
        try:
            self._take_away(ops)
        except BaseException:
            self._known.ops.update({one.id: one for one in ops})
            raise
        for one in ops:
            self._memory.let_go(one)
        turns = self._place.turns
        deadline, pause_s = time.monotonic() + _LEAVE_LIMIT_S, PAUSE_S
        while not turns.patiently(self._restore_alone) and not turns.retried(
            partial(self._give_back, time.monotonic() > deadline)
        ):
            time.sleep(pause_s)  # a thread is in a trampoline of ours
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _take_away(self, every: Sequence[Ops]) -> None:
        # Like a detach, it leaves alone what somebody else has changed meanwhile.
        try:
            self._transaction.apply(last=every, bounded=False)
        except SiteMismatchError:
            known = self._known
            called = known.dispatcher.patched
            ips = known.functions.table.ip
            known.read()
            self.foreign = tuple(ips[called & ~known.dispatcher.patched].tolist())
            self._transaction.apply(last=every, bounded=False)

    def _give_back(self, at_once: bool) -> bool:
        # Once nobody can be in code that knows of it: our shared memory, and our row. Not the last
        # row: of two that leave at once, one has to restore.
        place, known = self._place, self._known
        known.park_functions()
        with known.owned(bounded=False) as halt:
            if place.is_alone():
                return False
            known.learn_keys()
            known.dispatcher.free_parked(halt)
            is_used = known.dispatcher.trampolines.needs(known.others.ids)
            if is_used and not at_once:
                return False
            own = [s for s in place.region.segments if s.owner == place.owner.number]
            shared = [s for s in own if s.kind in (Kind.RING, Kind.COUNTERS, Kind.THREADS)]
            if is_used:
                # The last one to leave unmaps it; until then our number is nobody else's, because
                # code that counts for us finds its counters by it.
                for segment in shared:
                    place.region.park(segment)
                self.parked_bytes = sum(s.bytes for s in shared)
            else:
                place.region.drop(halt.remote, shared)
            place.region.owners.leave(place.owner)
        return True
