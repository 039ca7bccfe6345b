"""Tables of a few calls, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fentry.events.columns import Addresses, Events
from fentry.formats.task_names import TaskNames
from fentry.formats.tracefile import Task
from fentry.tracing.functions import Function, FunctionIds
from fentry.tracing.table import NOTHING_LOST, Lost, Table, make_table

MAIN = Function("main", "demo", 0x1000)
LEAF = Function("leaf", "demo", 0x2000)
MALLOC = Function("malloc", "libc.so.6", 0x7000)
RTLD_MALLOC = Function("malloc", "ld-linux-x86-64.so.2", 0x9000)
EVIL = Function("<script>&\"'", "<b>.so", 0xA000)
EVERY = (MAIN, LEAF, MALLOC, RTLD_MALLOC, EVIL)
SIZE = 0x100


class Call(NamedTuple):
    """One call, by MAIN unless another is said."""

    time_ns: int
    function: Function
    cpu: int = 0
    tid: int = 7
    parent_ip: int = MAIN.ip + 8


def containing(addresses: Addresses) -> list[Function]:
    """The function of EVERY that each address lies in."""
    return [_containing(address) for address in addresses.tolist()]


def _containing(address: int) -> Function:
    for function in EVERY:
        if function.ip <= address < function.ip + SIZE:
            return function
    return Function(f"{address:#x}", "", address)


def events_of(calls: Sequence[Call], *, parents: bool = True) -> Events:
    """The columns of some calls."""
    return Events(
        time_ns=np.array([call.time_ns for call in calls], np.int64),
        cpu=np.array([call.cpu for call in calls], np.uint16),
        tid=np.array([call.tid for call in calls], np.uint32),
        ip=np.array([call.function.ip for call in calls], np.uint64),
        parent_ip=np.array([call.parent_ip for call in calls], np.uint64) if parents else None,
        key=np.zeros(len(calls), np.uint32),
    )


def table_of(
    *calls: Call,
    lost: Lost = NOTHING_LOST,
    parents: bool = True,
    has_time: bool = True,
) -> Table:
    """Their table; thread 7 is called `bash`, and `sh` from 1000 ns on."""
    tasks = TaskNames([Task(7, b"bash", 0), Task(7, b"sh", 1000)])
    events = events_of(calls, parents=parents)
    return make_table(events, FunctionIds(containing), tasks, lost=lost, has_time=has_time)
