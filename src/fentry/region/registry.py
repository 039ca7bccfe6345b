"""The registry in the target: tables of segments, ops, trampolines and sites, read and written
through /proc/PID/mem.

It is input that the target could have changed: every offset and count is checked on reading.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fentry.errors import RegionError
from fentry.process.maps import Mapping
from fentry.process.memory import Memory
from fentry.region.layout import (
    CONTROL_MAGIC,
    HEADER_DTYPE,
    MAGIC,
    OPS_DTYPE,
    OPS_OFFSET,
    OPS_ROWS,
    OWNER_DTYPE,
    OWNER_ROWS,
    OWNERS_OFFSET,
    PAGE,
    REGISTRY_NAME,
    SEGMENT_DTYPE,
    SEGMENT_ROWS,
    SEGMENTS_OFFSET,
    SITE_DTYPE,
    SITES_OFFSET,
    TRAMPOLINE_DTYPE,
    TRAMPOLINE_ROWS,
    TRAMPOLINES_OFFSET,
    VERSION,
    registry_bytes,
)

Rows = NDArray[np.void]


def find_registry(maps: Sequence[Mapping]) -> Mapping | None:
    """The mapping of a registry, by its name; None where the process has none."""
    wanted = f"/memfd:{REGISTRY_NAME.decode()}"
    for mapping in maps:
        if mapping.path.removesuffix(" (deleted)") == wanted and mapping.perms.startswith("rw"):
            return mapping
    return None


def new_header(*, address: int, site_rows: int, nr_cpus: int) -> Rows:
    """A header for a registry at `address`, complete but for pid and control page."""
    header = np.zeros((), HEADER_DTYPE)
    header["magic"] = MAGIC
    header["version"] = VERSION
    header["header_bytes"] = HEADER_DTYPE.itemsize
    header["region_bytes"] = registry_bytes(site_rows)
    header["address"] = address
    header["nr_cpus"] = nr_cpus
    header["next_id"] = 1
    header["owners_offset"] = OWNERS_OFFSET
    header["segments_offset"] = SEGMENTS_OFFSET
    header["segment_rows"] = SEGMENT_ROWS
    header["ops_rows"] = OPS_ROWS
    header["ops_offset"] = OPS_OFFSET
    header["trampolines_offset"] = TRAMPOLINES_OFFSET
    header["trampoline_rows"] = TRAMPOLINE_ROWS
    header["site_rows"] = site_rows
    header["sites_offset"] = SITES_OFFSET
    return header


class UnfinishedRegistry(RegionError):
    """A controller died while it made the registry: no code, no row, no site exists yet."""


class Registry:
    """The tables of the registry mapped at `address`; each property reads the target anew."""

    def __init__(self, memory: Memory, mapping_start: int, mapping_bytes: int) -> None:
        self._memory = memory
        self.address = mapping_start
        self.bytes = mapping_bytes
        self._check()

    def _check(self) -> None:
        # A memfd that never got its size cannot be read; the header comes in one write(2).
        piece = self._memory.read_some(self.address, HEADER_DTYPE.itemsize)
        if not any(piece):
            raise UnfinishedRegistry(
                f"the registry at {self.address:#x} is not finished",
                cause="its controller died while making it",
                remedy="fentry detach removes it",
            )
        header = np.frombuffer(piece.ljust(HEADER_DTYPE.itemsize, b"\0"), HEADER_DTYPE)[0]
        if header["magic"] != MAGIC:
            raise RegionError(
                f"the registry at {self.address:#x} is damaged",
                cause="the target wrote over it",
                remedy="restart the target; its text may still hold calls",
            )
        if header["version"] != VERSION:
            raise RegionError(
                f"the registry at {self.address:#x} has version {header['version']}, "
                f"this fentry knows {VERSION}",
                cause="another version of fentry attached to this process",
                remedy="detach with that version",
            )
        rows = int(header["site_rows"])
        sound = (
            header["header_bytes"] == HEADER_DTYPE.itemsize
            and header["owners_offset"] == OWNERS_OFFSET
            and header["segments_offset"] == SEGMENTS_OFFSET
            and header["ops_offset"] == OPS_OFFSET
            and header["trampolines_offset"] == TRAMPOLINES_OFFSET
            and header["sites_offset"] == SITES_OFFSET
            and header["segment_rows"] == SEGMENT_ROWS
            and header["ops_rows"] == OPS_ROWS
            and header["trampoline_rows"] == TRAMPOLINE_ROWS
            and rows > 0
            and registry_bytes(rows) <= self.bytes
            and header["sites_used"] <= rows
        )
        if not sound:
            raise RegionError(
                f"the registry at {self.address:#x} is damaged",
                cause="the target wrote over it",
                remedy="restart the target; its text may still hold calls",
            )

    # Reading

    def _read(self, offset: int, dtype: np.dtype[np.void], rows: int) -> Rows:
        piece = self._memory.read(self.address + offset, rows * dtype.itemsize)
        return np.frombuffer(piece, dtype).copy()

    @property
    def header(self) -> Rows:
        """The header: one record of HEADER_DTYPE."""
        row: Rows = self._read(0, HEADER_DTYPE, 1)[0]
        return row

    @property
    def head(self) -> tuple[int, bytes]:
        """What every stop looks at, the header and the owners: where it lies, and all of it."""
        end = OWNERS_OFFSET + OWNER_ROWS * OWNER_DTYPE.itemsize
        return self.address, self._memory.read(self.address, end)

    @staticmethod
    def generation_and_owners(piece: bytes) -> tuple[int, Rows]:
        """What such a `head` says."""
        header = np.frombuffer(piece, HEADER_DTYPE, 1)[0]
        owners = np.frombuffer(piece, OWNER_DTYPE, OWNER_ROWS, OWNERS_OFFSET)
        return int(header["generation"]), owners

    @property
    def owners(self) -> Rows:
        """OWNER_DTYPE[OWNER_ROWS]."""
        return self._read(OWNERS_OFFSET, OWNER_DTYPE, OWNER_ROWS)

    @property
    def segments(self) -> Rows:
        """SEGMENT_DTYPE[SEGMENT_ROWS]."""
        return self._read(SEGMENTS_OFFSET, SEGMENT_DTYPE, SEGMENT_ROWS)

    @property
    def ops(self) -> Rows:
        """OPS_DTYPE[OPS_ROWS]."""
        return self._read(OPS_OFFSET, OPS_DTYPE, OPS_ROWS)

    @property
    def trampolines(self) -> Rows:
        """TRAMPOLINE_DTYPE[TRAMPOLINE_ROWS]."""
        return self._read(TRAMPOLINES_OFFSET, TRAMPOLINE_DTYPE, TRAMPOLINE_ROWS)

    @property
    def sites(self) -> Rows:
        """SITE_DTYPE[sites_used]: sites keep their row as long as the registry lives."""
        return self._read(SITES_OFFSET, SITE_DTYPE, int(self.header["sites_used"]))

    def is_inherited(self) -> bool:
        """Whether this process got the region by fork: its control page was wiped."""
        header = self.header
        address = int(header["control_address"])
        if not address:
            return False
        found = self._memory.read_some(address, 8)
        return int.from_bytes(found, "little") != CONTROL_MAGIC

    # Writing: rows first, what counts them last

    def write_rows(self, offset: int, first: int, rows: Rows) -> None:
        """Store `rows` of the table at `offset`, from row `first` on."""
        self._memory.write(self.address + offset + first * rows.dtype.itemsize, rows.tobytes())

    def write_owner(self, row: int, owner: Rows) -> None:
        """Store one owner row."""
        self.write_rows(OWNERS_OFFSET, row, owner)

    def write_segment(self, row: int, segment: Rows) -> None:
        """Store one segment row."""
        self.write_rows(SEGMENTS_OFFSET, row, segment)

    def write_ops(self, row: int, ops: Rows) -> None:
        """Store one ops row."""
        self.write_rows(OPS_OFFSET, row, ops)

    def write_trampoline(self, row: int, trampoline: Rows) -> None:
        """Store one trampoline row."""
        self.write_rows(TRAMPOLINES_OFFSET, row, trampoline)

    def write_sites(self, first: int, sites: Rows) -> None:
        """Store site rows from `first` on, then the count if it grows."""
        if not len(sites):
            return
        self.write_rows(SITES_OFFSET, first, sites)
        end = first + len(sites)
        if end > int(self.header["sites_used"]):
            self.write_header(sites_used=end)

    def write_header(self, **values: int) -> None:
        """Store single fields of the header."""
        for name, value in values.items():
            dtype, offset = HEADER_DTYPE.fields[name][:2]  # type: ignore[index]
            self._memory.write(self.address + offset, np.asarray(value, dtype).tobytes())

    def begin_change(self, current: int | None = None) -> int:
        """From here on the tables are not to be relied on: the generation, odd now. `current`
        saves reading the present one."""
        if current is None:
            current = int(self.header["generation"])
        return self._set_generation(current + 1 | 1)

    def end_change(self, current: int | None = None) -> int:
        """The tables are whole again: the generation, a new even one."""
        if current is None:
            current = int(self.header["generation"])
        return self._set_generation((current | 1) + 1)

    def _set_generation(self, generation: int) -> int:
        self.write_header(generation=generation)
        return generation


def page_align(count: int) -> int:
    """`count` rounded up to whole pages."""
    return -(-count // PAGE) * PAGE
