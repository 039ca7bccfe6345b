"""Bringing a target to what all ops want: text and registry, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from fentry.dispatch.ops import Ops
from fentry.dispatch.ops_rows import OpsRow
from fentry.dispatch.plan import Plan, make_plan
from fentry.process.gather import Pieces
from fentry.region.layout import HeaderFlag, State
from fentry.session.known import MOST_LOOKS, Known, ModulesChanged
from fentry.session.memory import OpsMemory
from fentry.session.place import Place
from fentry.sites.patcher import SiteMismatchError, SiteReadError


class Transaction:
    """apply() makes one, as often as asked; while it is not `enabled` our ops want nothing."""

    def __init__(self, place: Place, known: Known, memory: OpsMemory) -> None:
        self._place = place
        self._known = known
        self._memory = memory
        self.enabled = True
        self._flags = HeaderFlag.NONE  # as the registry has them

    def adopt_flags(self) -> None:
        """Whether it was switched off is as the registry says."""
        self._flags = HeaderFlag(int(self._place.region.registry.header["flags"])) & HeaderFlag.OFF
        self.enabled = self._flags is HeaderFlag.NONE

    def apply(
        self, *, first: Sequence[Ops] = (), last: Sequence[Ops] = (), bounded: bool = True
    ) -> None:
        """The registry says of ops that come before the text changes, of ops that go after it.

        All or nothing. Raises PatchError, LockError, TargetGone, StopTimeout.
        """
        self._place.turns.retried(partial(self._apply_once, first, last, bounded))

    def _apply_once(self, first: Sequence[Ops], last: Sequence[Ops], bounded: bool) -> None:
        was_unlike = False
        for attempt in range(MOST_LOOKS):
            plan = self._plan()
            coming = [self._entry(ops, State.LIVE) for ops in first]
            going = [self._entry(ops, State.FREE) for ops in last]
            for (_, row), ops in zip(coming, last, strict=False):
                row["replaces"] = ops.id  # both are in the registry for a moment
            try:
                self._known.dispatcher.apply(
                    plan, self._memory.body, verify=self._verify, relied_on=self._relied_on,
                    before=partial(self._write_rows, coming, self._header_flags),
                    after=partial(self._write_rows, going),
                    undo=partial(self._write_rows, self._place.rows.now(coming), self._flags),
                    bounded=bounded,
                )  # fmt: skip
                self._flags = self._header_flags
                return
            except ModulesChanged:
                if attempt == MOST_LOOKS - 1:
                    raise
                self._known.take_over()
            except (SiteMismatchError, SiteReadError):
                # The linker may have been at it: its list tells nothing then, and other text, or
                # none, is there for a moment. Nothing was changed.
                functions = self._known.functions
                self._known.renew()
                if attempt == MOST_LOOKS - 1 or (was_unlike and functions is self._known.functions):
                    raise
                was_unlike = True

    def _plan(self) -> Plan:
        own = list(self._known.ops.values()) if self.enabled else []
        traceable = self._known.functions.table.traceable
        theirs = list(self._known.others.ops.values())
        if theirs:
            # What they have stays, whatever we think of the function.
            self._known.refuse_second_redirect(own)
            own = [replace(ops, members=ops.members & traceable) for ops in own]
            traceable = np.ones_like(traceable)
        return make_plan([*own, *theirs], traceable)

    def _verify(self) -> None:
        # Inside the stop: nobody has joined whose functions would be switched off, and where a
        # module lay when its functions were looked for, no other is.
        if not self.enabled and self._flags is HeaderFlag.NONE:
            self._place.refuse_company("cannot be switched off")
        self._known.refuse_stale()

    def _relied_on(self) -> Pieces | None:
        # As long as all this is the same, _verify() would find nothing; None to ask it.
        return self._known.link_map.pieces() if self.enabled else None

    @property
    def _header_flags(self) -> HeaderFlag:
        return HeaderFlag.NONE if self.enabled else HeaderFlag.OFF

    def _write_rows(self, entries: Sequence[OpsRow], flags: HeaderFlag | None = None) -> None:
        if flags is not None and self._flags != self._header_flags:
            self._place.region.registry.write_header(flags=flags)
        self._place.rows.write(entries)
        self._place.refill_ids()

    def _entry(self, ops: Ops, state: State) -> OpsRow:
        # Of ops that go the members may be those of an older table.
        traceable = self._known.functions.table.traceable
        wanted = ops.members & traceable if state is State.LIVE else ()
        return self._place.rows.entry(ops, state, int(np.sum(wanted)), self._known.others.rows)

    def end_older_children(self) -> None:
        """Children keep the plan that they were forked with: after a change they are put back."""
        self._place.end_children(before=self._known.dispatcher.ownership.generation)
