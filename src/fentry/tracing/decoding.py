"""From records to events: keys become ips, ticks become times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fentry.events.clock import Clock
from fentry.events.columns import Addresses, Events, concatenate
from fentry.formats.id_cache import IdCache, Ids
from fentry.ring.layout import TID_MASK
from fentry.tracing.blocks import Part


class Sites:
    """The ip of each site key, as one look at a session gave them: uint32[m], uint64[m]."""

    def __init__(self, keys: NDArray[np.uint32], ips: Addresses) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._ips = np.append(ips[order], np.uint64(0))  # the last: of keys that are not known
        self._cache = IdCache(self._search)

    def ips(self, keys: NDArray[np.uint32]) -> Addresses:
        """The ip of each key, 0 where it is not known."""
        return self._ips[self._cache.of(keys.astype(np.uint64))]

    def calls(self, parts: Sequence[Part]) -> tuple[Addresses, NDArray[np.int64]]:
        """The ips of functions that were called, and how often, without decoding the rest."""
        calls = np.zeros(len(self._ips), np.int64)
        for part in parts:
            ids = self._cache.of(part.records["key"].astype(np.uint64))
            calls += np.bincount(ids, minlength=len(calls))
        called = np.flatnonzero(calls)
        return self._ips[called], calls[called]

    def _search(self, keys: Addresses) -> Ids:
        place = np.searchsorted(self._keys, keys)
        near = np.minimum(place, max(len(self._keys) - 1, 0))
        is_known = self._keys[near] == keys if len(self._keys) else np.zeros(len(keys), np.bool_)
        return np.where(is_known, near, len(self._keys))


def decode(parts: Sequence[Part], sites: Sites, clock: Clock | None, capacity: int) -> Events:
    """The events of some parts, one after the other. Without a `clock` their times are positions,
    which begin at `capacity`."""
    return concatenate([_decoded(part, sites, clock, capacity) for part in parts])


def _decoded(part: Part, sites: Sites, clock: Clock | None, capacity: int) -> Events:
    # Every column is a copy: the records may be forgotten.
    records = part.records
    time, key = records["time"].copy(), records["key"].copy()
    has_parents = "parent_ip" in (records.dtype.names or ())
    return Events(
        time_ns=time.astype(np.int64) - capacity if clock is None else clock.monotonic_ns(time),
        cpu=np.full(len(records), part.cpu, np.uint16),
        tid=records["word"] & np.uint32(TID_MASK),
        ip=sites.ips(key),
        parent_ip=records["parent_ip"].copy() if has_parents else None,
        key=key,
    )
