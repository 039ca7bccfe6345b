"""What goes on in a target while its calls are read: the ring fills, libraries are loaded.

Shared by what is written into a file (recording.py) and what is printed (live/).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.ops import Ops
from fentry.errors import FentryError
from fentry.session import Session
from fentry.symbols.module import Module

# The ring is read when a CPU's part is filled so far, or after this time: what is read at once
# should be much.
_DUE_FILL = 0.25
_DUE_S = 0.04
# How often its fill is looked at: the more often the faster it fills.
_SHORTEST_LOOK_S = 0.0002
LONGEST_LOOK_S = 0.01
_CALM_FILL = 0.06


class Pace:
    """When the ring is to be read, and until then how long to wait before its next look:
    `look_s`."""

    def __init__(self) -> None:
        self.look_s = _SHORTEST_LOOK_S
        self._due = 0.0

    def is_due(self, fill: float, now: float) -> bool:
        """Whether to read a ring that is so full (0 to 1) at CLOCK_MONOTONIC `now`."""
        if fill > _DUE_FILL:
            self.look_s = max(self.look_s / 2, _SHORTEST_LOOK_S)
            return True
        if fill < _CALM_FILL:
            self.look_s = min(self.look_s * 1.5, LONGEST_LOOK_S)
        return fill > 0 and now >= self._due

    def was_read(self) -> None:
        """It has been read just now, or could not be: it is tried again after a while."""
        self._due = time.monotonic() + _DUE_S


def processes_of(session: Session) -> list[int]:
    """The pids of a session that live: its own, and of children that are followed."""
    if session.followed is None:
        return [session.pid]
    return [*([session.pid] if session.has_process() else []), *session.followed.living]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Modules that were loaded, the first of them number `first` of all; how many of their
    functions are traced, and refused. They may have run since CLOCK_MONOTONIC `not_before_ns`."""

    modules: list[Module]
    first: int
    not_before_ns: int
    functions: int
    refused: int


class Loading:
    """Modules that are loaded while `ops` are traced; `traced` are the ips of all traced functions,
    uint64[n]."""

    def __init__(self, session: Session, ops: Ops) -> None:
        self._session = session
        self._ops = ops
        self._looked_ns = time.monotonic_ns()
        self._nr_modules = len(session.functions.modules)
        table = session.functions.table
        self.traced: NDArray[np.uint64] = table.ip[ops.members & table.traceable]

    def look(self) -> Loaded | None:
        """What was loaded since the last look, and is traced from here on; None for nothing."""
        looked_ns, self._looked_ns = self._looked_ns, time.monotonic_ns()
        try:
            fresh = self._session.follow_modules()
        except FentryError:
            return None  # it has ended, or another has it; else the next look tries again
        if not fresh:
            return None
        functions, members = self._session.functions, self._ops.members
        table = functions.table
        chosen = members & table.traceable
        numbers = {id(module): number for number, module in enumerate(functions.modules)}
        own = np.isin(table.module, [numbers[id(module)] for module in fresh])
        self.traced = np.union1d(self.traced, table.ip[chosen])
        first, self._nr_modules = self._nr_modules, self._nr_modules + len(fresh)
        refused = int((members & own & ~table.traceable).sum())
        return Loaded(fresh, first, looked_ns, int((chosen & own).sum()), refused)
