"""A live session between two calls of its user: what is loaded is followed, names looked up."""

from __future__ import annotations

import select
import time
from contextlib import suppress

import numpy as np

from fentry.dispatch.ops import Ops
from fentry.errors import FentryError
from fentry.events.columns import Addresses
from fentry.formats.symbol_names import printable
from fentry.session import Session
from fentry.tracing.functions import Function

_LOOK_S = 0.01


def follow(session: Session) -> None:
    """Trace what was loaded since, and keep the lists of threads and children up to date. Costs
    next to nothing when there is nothing new."""
    with suppress(FentryError):  # it has ended, or another has it; else the next look tries again
        session.follow_modules()
        session.follow_threads()
        session.follow_forks()


def let_go(session: Session) -> None:
    """Let a command run that was held since it was started."""
    if session.is_held:
        session.release()


def wait(session: Session, seconds: float | None = None) -> str:
    """Let a target run, followed all the time, for so long or until it ends; why it is over."""
    let_go(session)
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        if why := session.why_over():
            return why
        left_s = _LOOK_S if until is None else until - time.monotonic()
        if left_s <= 0:
            return "time is up"
        select.select(session.wakeups, [], [], min(left_s, _LOOK_S))
        follow(session)


def is_over(session: Session) -> bool:
    """Whether nothing of the target is left to be restored."""
    return session.pidfd < 0 or bool(session.why_over())


def traced_functions(session: Session, ops: Ops) -> list[Function]:
    """The functions that ops see, as the table of functions has them now."""
    functions = session.functions
    rows = np.flatnonzero(ops.members & functions.table.traceable)
    ips, modules = functions.table.ip[rows], functions.table.module[rows].tolist()
    names = functions.symbols.names_at(ips)
    return [
        Function(shown(name), functions.modules[module].name, ip)
        for name, module, ip in zip(names, modules, ips.tolist(), strict=True)
    ]


def functions_containing(session: Session, addresses: Addresses) -> list[Function]:
    """The function that each address lies in, as far as is known now."""
    found = []
    for address in addresses.tolist():
        name, offset, module = session.functions.symbols.resolve(address)
        found.append(Function(shown(name), module.name if module else "", address - offset))
    return found


def shown(name: str) -> str:
    """A name that a target has chosen, without what would lead a terminal astray."""
    return printable(name.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
