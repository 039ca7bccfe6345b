"""What every site calls, as the registry of a traced process says it: the kernel's dyn_ftrace.

Read from outside and without the lock, also by who does not control the process.  Pure, but for
memory that is read.  Mirrors t_show() and ftrace_find_tramp_ops_any() of kernel/trace/ftrace.c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fentry.region.layout import (
    DATA_DTYPE,
    DATA_HEADER_BYTES,
    Kind,
    SiteFlag,
    SiteState,
    State,
    TrampolineKind,
)
from fentry.region.lists import ListEntry, read_list
from fentry.region.region import Region
from fentry.region.registry import Rows

SAVE_REGS = 1 << 2  # FTRACE_OPS_FL_*, include/linux/ftrace.h
IPMODIFY = 1 << 12
DIRECT = 1 << 17
MODIFIED = 1 << 20  # FTRACE_FL_MODIFIED, of the record: never cleared

Set = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A function that calls something, or did: `members` are the ids of its ops, in the order in
    which they run; `flags` of all of them together.

    `call` is the trampoline (target address), 0 where nothing is called; `on_list` if it is one
    that all ops share.  `is_gone`: another library lies there now.  `direct` is the code of its
    DIRECT ops, 0 where it has none.
    """

    ip: int
    row: int
    members: Set
    flags: int
    call: int
    is_gone: bool = False
    on_list: bool = False
    direct: int = 0

    @property
    def is_enabled(self) -> bool:
        """Whether it calls something now (count > 0)."""
        return bool(self.members)


def records(region: Region) -> list[Record]:
    """Every function that was ever patched since the attach, by address (touched_functions)."""
    sites, trampolines = region.registry.sites, region.registry.trampolines
    directs = _directs(region)
    flags, lists = flags_by_id(region.registry.ops), _lists(region, trampolines)
    found = []
    for row in np.argsort(sites["ip"], kind="stable").tolist():
        members: Set = ()
        if sites["state"][row] == SiteState.CALL:
            number = int(sites["trampoline"][row])
            members = _set_of(trampolines, number)
            if number in lists:
                rows = np.array([row])
                members = tuple(one.id for one in lists[number] if one.wants(rows)[0])
        together = 0
        for one in members:
            together |= flags.get(one, 0)
        if sites["flags"][row] & SiteFlag.MODIFIED:
            together |= MODIFIED
        call = int(sites["call"][row]) if members else 0
        is_gone = bool(sites["state"][row] == SiteState.GONE)
        on_list = bool(members) and int(sites["trampoline"][row]) in lists
        ip = int(sites["ip"][row])
        direct = next((directs[one] for one in members if one in directs), 0)
        found.append(Record(ip, row, members, together, call, is_gone, on_list, direct))
    return found


def _directs(region: Region) -> dict[int, int]:
    # Where the code of each DIRECT ops begins.
    found = {}
    for segment in region.of_kind(Kind.DATA):
        piece = region.memory.read_some(segment.address, DATA_HEADER_BYTES)
        if len(piece) == DATA_HEADER_BYTES:
            row = np.frombuffer(piece, DATA_DTYPE)[0]
            if int(row["flags"]) & DIRECT:
                found[int(row["id"])] = int(row["code"]) + int(row["entry"])
    return found


def flags_by_id(ops: Rows) -> dict[int, int]:
    """The flags of each live ops."""
    live = ops[ops["state"] == State.LIVE]
    return dict(zip(live["id"].tolist(), live["flags"].tolist(), strict=True))


def _lists(region: Region, trampolines: Rows) -> dict[int, list[ListEntry]]:
    # The lists by the row of the trampoline that walks them.
    is_list = (trampolines["kind"] == TrampolineKind.LIST) & (trampolines["state"] == State.LIVE)
    cells = {row: int(trampolines["section"][row]) for row in np.flatnonzero(is_list).tolist()}
    return {
        row: read_list(region.memory, region.memory.read_u64(cell)) for row, cell in cells.items()
    }


def _set_of(trampolines: Rows, row: int) -> Set:
    # The table is input that the target could have changed.
    if not 0 <= row < len(trampolines):
        return ()
    count = min(int(trampolines["nr_ops"][row]), trampolines["ops"].shape[1])
    return tuple(trampolines["ops"][row][:count].tolist())
