"""The rows of the registry that tell of the ops of one controller."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.ops import Ops
from fentry.errors import BadInput
from fentry.region.layout import OPS_DTYPE, OPS_ROWS, State
from fentry.region.registry import Registry

OpsRow = tuple[int, NDArray[np.void]]  # number and content


class OpsRows:
    """Which row each ops has, by id; the registry has them once they are written."""

    def __init__(self, registry: Registry, owner: int) -> None:
        self._registry = registry
        self._owner = owner
        self._numbers: dict[int, int] = {}

    def take(self, ops: int, number: int) -> None:
        """The row that the ops of this id has in the registry already."""
        self._numbers[ops] = number

    def drop(self, ops: int) -> None:
        """The ops of this id needs none any more; safe to call again."""
        self._numbers.pop(ops, None)

    def entry(self, ops: Ops, state: State, nr_sites: int, taken: Set[int]) -> OpsRow:
        """Number and content of the row of an ops. `taken` are rows of other controllers: one of
        them may have the row that was meant, before it was written. Raises BadInput when no row is
        left."""
        row = np.zeros((), OPS_DTYPE)
        row["id"], row["state"], row["callback"] = ops.id, state, ops.callback
        row["nr_sites"], row["owner"] = nr_sites, self._owner
        row["slot"], row["instance"], row["flags"] = ops.slot, ops.instance, ops.flags
        row["filter"] = ops.text.encode(errors="surrogateescape")[: OPS_DTYPE["filter"].itemsize]
        return self._number(ops.id, taken), row

    def now(self, entries: Sequence[OpsRow]) -> list[OpsRow]:
        """The same rows as the registry has them."""
        rows = self._registry.ops if entries else np.empty(0, OPS_DTYPE)
        return [(number, rows[number]) for number, _ in entries]

    def write(self, entries: Sequence[OpsRow]) -> None:
        """Store rows; inside a stop."""
        for number, row in entries:
            self._registry.write_ops(number, row)

    def _number(self, ops: int, taken: Set[int]) -> int:
        if ops not in self._numbers or self._numbers[ops] in taken:
            free = set(range(OPS_ROWS)) - set(self._numbers.values()) - taken
            if not free:
                raise BadInput(f"{OPS_ROWS} ops are registered already, of all controllers")
            self._numbers[ops] = min(free)
        return self._numbers[ops]
