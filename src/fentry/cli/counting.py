"""Counted functions as a person sees them: their counters at a moment, and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.ops import Ops
from fentry.formats.table import FunctionCount
from fentry.session import Session
from fentry.sites.functions import Functions


def chosen_counts(session: Session, ops: Ops) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(ips, calls) of the functions that `ops` count now: both uint64[n]."""
    ips, calls = session.counts(ops)
    chosen = np.isin(ips, session.functions.table.ip[ops.members])
    return ips[chosen], calls[chosen]


class FunctionLabels:
    """Names and modules of functions, looked up when they are first shown."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._functions: Functions | None = None
        self._known: dict[int, tuple[str, str, str]] = {}

    def of(self, ips: Sequence[int]) -> list[tuple[str, str]]:
        """(function, module) of each; where several have the same, with their place in the
        module."""
        if self._functions is not self._session.functions:  # something was loaded
            self._functions = self._session.functions
            self._known.clear()
        found = [self._found(ip) for ip in ips]
        often = Counter((name, module) for name, module, _ in found)
        return [
            (name + (f" ({place})" if place and often[name, module] > 1 else ""), module)
            for name, module, place in found
        ]

    def _found(self, ip: int) -> tuple[str, str, str]:
        known = self._known.get(ip)
        if known is None:
            name, _, module = self._session.functions.symbols.resolve(ip)
            known = name, "", ""
            if module is not None:
                known = name, module.name, f"{module.name}+0x{ip - module.base:x}"
            self._known[ip] = known
        return known


def count_rows(labels: FunctionLabels, ips: list[int], calls: list[int]) -> list[FunctionCount]:
    """One row for each function, most calls first, then by name and module."""
    total = max(sum(calls), 1)
    rows = [
        FunctionCount(count, count / total, name, module)
        for count, (name, module) in zip(calls, labels.of(ips), strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.calls, row.function, row.module))
