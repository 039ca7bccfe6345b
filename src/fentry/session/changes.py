"""Changes of which ops there are and what they see: each is made as a whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.ops import (
    Callback,
    Ops,
    refuse_filtered_direct,
    refuse_flags,
    refuse_open_redirect,
)
from fentry.dispatch.permanent import refuse_permanent
from fentry.dispatch.threads import ThreadFilter
from fentry.errors import BadInput, SymbolNotFound
from fentry.instance import TOP
from fentry.session.known import Known
from fentry.session.memory import OpsMemory
from fentry.session.place import Place
from fentry.session.transaction import Transaction
from fentry.sites.site import reasons_by_value
from fentry.symbols.module import Module

if TYPE_CHECKING:
    from fentry.trampolines.direct import DirectCode


class Changes:
    """What Session's methods of the same names do; see there."""

    def __init__(
        self, place: Place, known: Known, memory: OpsMemory, transaction: Transaction
    ) -> None:
        self._place = place
        self._known = known
        self._memory = memory
        self._transaction = transaction
        self._ops = known.ops

    # 1. Ops come and go

    def register(self, ops: Ops) -> Ops:
        """Let `ops` see its functions from now on."""
        known, memory = self._known, self._memory
        memory.refuse_threads(ops.threads)
        refuse_flags(ops)
        known.catch_up()
        if not self._transaction.enabled:
            what = "cannot be registered while it is switched off"
            refuse_permanent(self._place.pid, [ops], what)
        known.renew()
        wanted, notrace, members = self._members_of(ops, ops.filter, ops.notrace)
        traced = members & known.functions.table.traceable
        if not (traced.any() or known.functions.not_loaded(wanted)):
            raise SymbolNotFound(
                f"none of the {int(members.sum())} functions that match can be traced",
                cause=self._first_reason(members),
                remedy=f"fentry list {self._listed()} tells the reason for each",
            )
        if ops.instance == TOP:
            ops.instance = memory.top.number
        ops.id = self._new_id()
        ops.members = members
        try:
            known.refuse_second_redirect([*self._ops.values(), ops])
            ops.filter, ops.notrace = wanted, notrace
            self._ops[ops.id] = ops  # from here on matched again when other libraries are there
            memory.prepare(ops)
            memory.make_threads(ops)
            self._transaction.apply(first=[ops])
        except BaseException:
            memory.threads.remove(ops.id)
            self._ops.pop(ops.id, None)
            self._place.rows.drop(ops.id)
            known.natives.park(ops.id)
            ops.id = 0
            memory.let_go(ops)
            raise
        self._transaction.end_older_children()
        return ops

    def _members_of(
        self, ops: Ops, wanted: Sequence[str], notrace: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.bool_]]:
        functions = self._known.functions
        settled, refused = functions.settled(wanted), functions.settled(notrace)
        members = functions.match(settled, refused)
        self._known.refuse_parts(ops, members)
        self._known.refuse_foreign(members)
        return settled, refused, members

    def _listed(self) -> str:
        # What `fentry list` can look at afterwards.
        pid = self._place.pid
        return os.readlink(f"/proc/{pid}/exe") if self._place.is_held else f"-p {pid}"

    def _first_reason(self, members: NDArray[np.bool_]) -> str:
        reasons = self._known.functions.table.reason[members]
        return reasons_by_value()[int(reasons[0])].text if len(reasons) else ""

    def _new_id(self) -> int:
        ids = self._place.ids
        if not ids:
            with self._known.owned(current=False):
                ids.extend(self._place.region.owners.take_ids())
        return ids.popleft()

    def unregister(self, every: Sequence[Ops]) -> None:
        """Take these away, in one transaction."""
        for ops in every:
            del self._ops[ops.id]
        try:
            self._transaction.apply(last=every)
        except BaseException:
            for ops in every:
                self._ops[ops.id] = ops
                self._known.natives.keep(ops.id)
                self._known.match_again(ops)
            raise
        for ops in every:
            self._memory.leave_slot(ops.id, ops)
            self._place.rows.drop(ops.id)
            self._memory.threads.remove(ops.id)
            self._known.natives.park(ops.id)
            self._memory.let_go(ops)
        self._transaction.end_older_children()

    # 2. Ops see other functions

    def set_filter(self, ops: Ops, wanted: Sequence[str], notrace: Sequence[str]) -> None:
        """Change which functions registered ops see."""
        self._known.catch_up()
        self._known.renew()
        wanted, notrace, members = self._members_of(ops, wanted, notrace)
        before = ops.filter, ops.notrace
        ops.filter, ops.notrace, ops.members = wanted, notrace, members
        try:
            refuse_open_redirect(ops)
            self._known.refuse_second_redirect(list(self._ops.values()))
            self._transaction.apply(first=[ops])
        except BaseException:
            ops.filter, ops.notrace = before
            self._known.match_again(ops)
            raise
        self._transaction.end_older_children()

    def follow_modules(self) -> list[Module]:
        """Trace what has been loaded since; the new modules."""
        known = self._known
        known.learn_keys()
        known.renew(thoroughly=False)
        if not known.is_unapplied:
            return []
        self._transaction.apply(first=list(self._ops.values()))
        return known.take_news()

    def switch(self, on: bool) -> None:
        """What `enabled` says from now on."""
        if on == self._transaction.enabled:
            return
        self._known.catch_up()
        if not on:
            every = [*self._ops.values(), *self._known.others.ops.values()]
            refuse_permanent(self._place.pid, every, "cannot be switched off")
            self._place.refuse_company("cannot be switched off")
        self._known.renew()
        self._transaction.enabled = on
        try:
            self._transaction.apply()
        except BaseException:
            self._transaction.enabled = not on
            raise
        self._transaction.end_older_children()

    # 3. Ops get a new id: their trampoline is another one, and both are in the registry meanwhile

    def set_threads(self, ops: Ops, threads: ThreadFilter) -> None:
        """Change which threads registered ops see."""
        refuse_filtered_direct(ops, threads)
        self._memory.refuse_threads(threads)
        seen = self._memory.threads.get(ops.id)
        if (seen is None) is bool(threads):
            self._replace(ops, threads)
        elif seen is not None:
            # Else another controller has moved the table.
            self._known.dispatcher.ownership.check(current=False)
            seen.set(threads)
            ops.threads = threads

    def _replace(self, ops: Ops, threads: ThreadFilter) -> None:
        self._known.catch_up()
        self._known.renew()
        with self._as_another(ops) as before:
            ops.threads = threads
            if ops.callback is Callback.CALL:
                self._memory.alias(before.id, ops.id)
            self._memory.make_threads(ops)
            self._transaction.apply(first=[ops], last=[before])
        if ops.callback is Callback.CALL:
            self._known.natives.name_segment(ops.id)

    def modify_direct(self, ops: Ops, code: DirectCode) -> None:
        """Let DIRECT ops call other code."""
        self._known.catch_up()
        wanted = Ops(Callback.DIRECT, ops.filter, ops.notrace, ops.flags, function=code)
        if ops.callback is not Callback.DIRECT:
            raise BadInput("these ops are not DIRECT")
        refuse_flags(wanted)
        self._known.renew()
        with self._as_another(ops) as before:
            ops.function = code
            self._memory.place_function(ops)
            self._transaction.apply(first=[ops], last=[before])

    @contextmanager
    def _as_another(self, ops: Ops) -> Iterator[Ops]:
        # `ops` have a new id inside, and keep it unless that fails; yields what they were, whose
        # function stays until then, also where another controller makes us look again.
        known, number = self._known, self._new_id()
        before = copy(ops)
        del self._ops[before.id]
        ops.id, self._ops[number] = number, ops
        known.leaving = before.id
        try:
            yield before
        except BaseException:
            known.natives.park(number)
            self._memory.threads.remove(number)
            del self._ops[number]
            self._place.rows.drop(number)
            ops.id, ops.flags, ops.threads = before.id, before.flags, before.threads
            ops.function = before.function
            self._ops[ops.id] = ops
            known.natives.keep(ops.id)
            raise
        finally:
            known.leaving = 0
        self._place.rows.drop(before.id)
        self._transaction.end_older_children()
        self._memory.threads.remove(before.id)
        self._memory.leave_slot(before.id, ops)
        known.natives.park(before.id)
