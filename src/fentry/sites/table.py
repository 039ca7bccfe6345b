"""All sites of one target: the functions of every module at the addresses where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fentry.sites.pad import entries
from fentry.sites.site import PATCH_SIZE, SHORT_SIZE, ModuleSites, SiteKind


@dataclass(frozen=True, slots=True)
class SiteTable:
    """One row for each function of the target, sorted by ip (function entry, target address).

    `patch` is where five bytes can be replaced, `window` how many bytes whole instructions cover
    there, `original` uint8[n, 16] the bytes of the file, `module` an index into what the table
    was made of, `kind`, `reason`, `carrier` and `part` as in sites.site. `hole` is where a SHORT
    site has its long jump, 0 for others, `filler` uint8[n, 16] what the file has there, or from the
    first instruction of its carrier. `from_memory`: the module was read from the target's memory,
    not from a file.
    """

    ip: NDArray[np.uint64]
    patch: NDArray[np.uint64]
    window: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    reason: NDArray[np.uint8]
    original: NDArray[np.uint8]
    module: NDArray[np.int32]
    hole: NDArray[np.uint64]
    filler: NDArray[np.uint8]
    carrier: NDArray[np.uint8]
    part: NDArray[np.bool_]
    from_memory: NDArray[np.bool_]

    @classmethod
    def build(cls, parts: Sequence[tuple[int, ModuleSites]]) -> SiteTable:
        """The table of modules given as (bias, sites); bias is target address less vaddr."""
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in cls.__slots__}
        for index, (bias, found) in enumerate(parts):
            rows = found.sites
            columns["ip"].append(rows["entry"] + np.uint64(bias % (1 << 64)))
            columns["patch"].append(rows["patch"] + np.uint64(bias % (1 << 64)))
            for name in ("window", "kind", "reason", "carrier", "part"):
                columns[name].append(rows[name])
            for name in ("original", "filler"):
                kept = np.ascontiguousarray(rows[name]).view(np.uint8).reshape(-1, 16)
                columns[name].append(kept)
            columns["module"].append(np.full(len(rows), index, np.int32))
            shift = np.where(rows["hole"] != 0, np.uint64(bias % (1 << 64)), np.uint64(0))
            columns["hole"].append(rows["hole"] + shift)
            columns["from_memory"].append(np.zeros(len(rows), np.bool_))
        if not parts:
            none, few = np.empty(0, np.uint64), np.empty(0, np.uint8)
            return cls(
                none,
                none,
                few,
                few,
                few,
                np.empty((0, 16), np.uint8),
                np.empty(0, np.int32),
                none,
                np.empty((0, 16), np.uint8),
                few,
                np.empty(0, np.bool_),
                np.empty(0, np.bool_),
            )
        joined = {name: np.concatenate(pieces) for name, pieces in columns.items()}
        order = np.argsort(joined["ip"], kind="stable")
        return cls(**{name: column[order] for name, column in joined.items()})

    def fill(self, module: int, bias: int, found: ModuleSites) -> None:
        """Put the sites of one module, number `module` of build(), into its rows."""
        rows = np.flatnonzero(self.module == module)
        part = SiteTable.build([(bias, found)])
        for name in SiteTable.__slots__:
            if name not in ("ip", "module", "from_memory"):
                getattr(self, name)[rows] = getattr(part, name)

    def __len__(self) -> int:
        return len(self.ip)

    def poke_bytes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many bytes of text are replaced at each row: int64[n]."""
        return np.where(self.kind[rows] == SiteKind.SHORT, SHORT_SIZE, PATCH_SIZE)

    def pad_entries(self, rows: NDArray[np.int64], pad: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Where each row's jump leads if its pad lies at `pad`: uint64[n]."""
        return entries(pad, self.part[rows])

    def carrier_starts(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Where the instructions begin that are moved for the long jump of each row: uint64[n]."""
        return self.hole[rows] - np.uint64(PATCH_SIZE)

    def hole_filler(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """What the file has where the long jump of each row lies: uint8[n, 5]."""
        return hole_filler(self.filler[rows], self.carrier[rows])

    @property
    def traceable(self) -> NDArray[np.bool_]:
        """Which functions have a site: bool[n]."""
        result: NDArray[np.bool_] = self.kind != SiteKind.REFUSED
        return result

    def rows_of(self, ips: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of each ip, -1 where no function begins."""
        rows = np.searchsorted(self.ip, ips)
        rows[rows == len(self.ip)] = 0
        found = len(self.ip) and self.ip[rows] == ips
        return np.where(found, rows, -1)


def hole_filler(filler: NDArray[np.uint8], carrier: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The five bytes of each long jump among the filler: uint8[n, 5]."""
    behind = filler[:, PATCH_SIZE : 2 * PATCH_SIZE]
    return np.where((carrier != 0)[:, None], behind, filler[:, :PATCH_SIZE])
