"""The heart, pure: from all ops and all sites to what every site must call.

A site with the ops {A, B} gets the set (B, A), newest first as in the kernel, who redirects last;
each distinct set gets one trampoline.  The order of registrations and removals that led here does
not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.ops import Ops


@dataclass(frozen=True, slots=True)
class Plan:
    """What each site calls: `wanted` is int32[n], an index into `sets`; sets[0] is empty.

    `order` are the ids of all ops; those of every set are in this order.
    """

    sets: tuple[tuple[int, ...], ...]
    wanted: NDArray[np.int32]
    order: tuple[int, ...] = ()


def make_plan(ops: Sequence[Ops], traceable: NDArray[np.bool_]) -> Plan:
    """The plan for these ops over sites of which `traceable` says who has one: bool[n]."""
    newest_first = sorted(ops, key=lambda one: (one.redirects, -one.id))
    n = len(traceable)
    if not newest_first:
        return Plan(((),), np.zeros(n, np.int32))
    members = np.stack([one.members & traceable for one in newest_first])
    packed = np.packbits(members, axis=0).T
    rows = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    values, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    sets: list[tuple[int, ...]] = [()]
    index = np.zeros(len(values), np.int32)
    for i, site in enumerate(first.tolist()):
        chosen = tuple(
            one.id for one, wanted in zip(newest_first, members[:, site], strict=True) if wanted
        )
        if chosen:
            index[i] = len(sets)
            sets.append(chosen)
    order = tuple(one.id for one in newest_first)
    return Plan(tuple(sets), index[inverse.ravel()], order)


def redirected_twice(
    ops: Sequence[Ops], traceable: NDArray[np.bool_]
) -> tuple[Ops, NDArray[np.int64]] | None:
    """The newest ops with IPMODIFY that wants sites which an older one has, and these sites.

    None where every function has at most one (the kernel: __ftrace_hash_update_ipmodify()).
    """
    taken = np.zeros(len(traceable), np.bool_)
    found = None
    for one in sorted(ops, key=lambda one: one.id):
        if one.redirects:
            both = np.flatnonzero(one.members & traceable & taken)
            if len(both):
                found = one, both
            taken |= one.members
    return found
