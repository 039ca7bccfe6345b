"""Functions and what they call, as the kernel's enabled_functions and touched_functions show them.

t_show() in kernel/trace/ftrace.c (v6.12): name, the number of ops, five cells for flags, then a tab
and `tramp: ADDRESS (callback)`, or ` ->ftrace_ops_list_func` where ops share a list, then in a line
of its own `direct-->ADDRESS`.  Several ops of one function follow in lines of their own, in the
order in which they run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fentry.dispatch.records import DIRECT, IPMODIFY, MODIFIED, SAVE_REGS, Record

# " R" and so on, in the kernel's order; O (CALL_OPS) does not exist here.
CELLS = ((SAVE_REGS, " R"), (IPMODIFY, " I"), (DIRECT, " D"), (0, " O"), (MODIFIED, " M "))

LETTERS = {SAVE_REGS: "R", IPMODIFY: "I", DIRECT: "D", MODIFIED: "M"}

Named = tuple[str, str]


def as_values(record: Record, named: Named, ops: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """One function as plain values; `ops` by id is what the registry says of them."""
    name, module = named
    return {
        "name": name,
        "module": module,
        "ip": record.ip,
        "row": record.row,
        "count": len(record.members),
        "flags": "".join(letter for bit, letter in LETTERS.items() if record.flags & bit),
        "trampoline": record.call,
        "gone": record.is_gone,
        "list": record.on_list,
        "direct": record.direct,
        "ops": [
            {key: ops[one][key] for key in ("id", "callback", "instance")}
            if one in ops
            else {"id": one, "callback": "?", "instance": ""}
            for one in record.members
        ],
    }


def lines_of(call: Mapping[str, Any]) -> list[str]:
    """The lines of one function, of what as_values() gave."""
    where = f" [{call['module']}]" if call["module"] else ""
    line = f"{call['name']}{where} ({call['count']}){_cells(call['flags'])}"
    users: Sequence[Mapping[str, Any]] = call["ops"]
    if not users:
        return [line.rstrip() + (" gone" if call["gone"] else "")]
    direct = [f"\tdirect-->{call['direct']:#x}"] if call["direct"] else []
    if call["direct"] == call["trampoline"]:
        return [line, *direct]  # the site calls it: there is no trampoline
    if call["list"]:
        line += f" ->ftrace_ops_list_func ({call['trampoline']:#x})"
    else:
        callbacks = ", ".join(_callback(one) for one in users)
        line += f"\ttramp: {call['trampoline']:#x} ({callbacks})"
        if len(users) == 1:
            return [line, *direct]
    return [line, *direct, *(f"\tops: {one['id']} ({_callback(one)})" for one in users)]


def _cells(flags: str) -> str:
    return "".join(
        cell if LETTERS.get(bit, "-") in flags else " " * len(cell) for bit, cell in CELLS
    )


def _callback(ops: Mapping[str, Any]) -> str:
    where = f" in {ops['instance']}" if ops["instance"] else ""
    return f"{ops['callback']}{where}"
