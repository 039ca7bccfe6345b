"""PERMANENT ops: they hold off the off switch and every detach but their owner's unregister().

Mirrors FTRACE_OPS_FL_PERMANENT in kernel/trace/ftrace.c: ftrace_enabled cannot be cleared while
such an ops is registered (EBUSY), and none can be registered while it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from fentry.dispatch.ops import Callback, Flags, Ops
from fentry.errors import LockError, PatchError, RegionError, TargetGone
from fentry.process.maps import read_maps
from fentry.process.target import Target
from fentry.region.layout import State
from fentry.region.region import Region
from fentry.region.registry import Rows


def permanent(every: Iterable[Ops]) -> list[Ops]:
    """Those of some ops that are PERMANENT."""
    return [ops for ops in every if Flags.PERMANENT in ops.flags]


def refuse_permanent(pid: int, every: Iterable[Ops], what: str) -> None:
    """Raise LockError if one of the ops of our own is PERMANENT: `what` cannot be done."""
    found = permanent(every)
    if found:
        raise LockError(
            f"{what}: process {pid} has PERMANENT ops",
            cause=", ".join(_named(o.id, o.callback.name.lower(), o.text) for o in found),
            remedy="session.unregister() them, or leave them in place with session.leave()",
        )


def refuse_others_permanent(pid: int, region: Region, *, force: bool = False) -> None:
    """Raise LockError if a region holds PERMANENT ops, before anything of it is touched.

    With `force` only where their owner lives.  In a forked child that inherited the region, records
    and counts are silent and hold nothing off.
    """
    rows = permanent_rows(region)
    inherited = region.registry.is_inherited()
    if inherited:
        rows = rows[~np.isin(rows["callback"], (Callback.RECORD, Callback.COUNT))]
    living = {one.number: one for one in ([] if inherited else region.owners.living)}
    held = [living[number] for number in rows["owner"].tolist() if number in living]
    owner = next((one for one in held if one.pid != os.getpid()), None)
    if not len(rows) or (force and owner is None):
        return
    names = {int(one): one.name.lower() for one in Callback}
    raise LockError(
        f"process {pid} has PERMANENT ops",
        cause=", ".join(
            _named(
                int(row["id"]), names.get(int(row["callback"]), "?"),
                bytes(row["filter"]).decode(errors="replace"),
            )
            for row in rows
        ),
        remedy=f"their owner unregisters them: {owner.text}"
        if owner is not None
        else f"go on with them (fentry.adopt({pid})), or fentry detach --force -p {pid}",
    )  # fmt: skip


def permanent_rows(region: Region) -> Rows:
    """The rows of PERMANENT ops that are in force in a region."""
    rows = region.registry.ops
    found: Rows = rows[(rows["state"] == State.LIVE) & (rows["flags"] & Flags.PERMANENT != 0)]
    return found


def recorders_of(target: Target) -> list[str]:
    """What is recorded in a process without anybody to read it, by words of the filters; nothing is
    stopped."""
    with suppress(PatchError, RegionError):
        region = Region.open(target.memory, read_maps(target.pid))
        if region is not None and not region.registry.is_inherited():
            rows = permanent_rows(region)
            living = {one.number for one in region.owners.living}
            return [
                bytes(row["filter"]).decode(errors="replace")
                for row in rows[rows["callback"] == Callback.RECORD]
                if int(row["owner"]) not in living
            ]
    return []


def refuse_permanent_in(target: Target, *, force: bool = False) -> None:
    """As refuse_others_permanent(), of whatever a process has; before anything is stopped."""
    with suppress(PatchError, RegionError, TargetGone):  # what is wrong with it, the undoing tells
        region = Region.open(target.memory, read_maps(target.pid))
        if region is not None:
            refuse_others_permanent(target.pid, region, force=force)


def _named(number: int, callback: str, text: str) -> str:
    return f"ops {number} ({callback} {text})"
