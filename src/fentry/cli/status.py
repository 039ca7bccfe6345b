"""fentry status: what is attached to a process, as its registry has it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import click
import numpy as np

from fentry.dispatch.ops import Flags
from fentry.errors import PatchError, RegionError
from fentry.process.maps import read_maps
from fentry.process.proc import command_of
from fentry.process.target import Target
from fentry.region.inherited import inheritors_of
from fentry.region.layout import Kind, SiteState, State
from fentry.region.region import Region
from fentry.symbols.ifuncs import implementations
from fentry.symbols.module import load_modules
from fentry.symbols.table import SymbolTable

_TRIES = 10

CALLBACKS = {1: "record", 2: "count", 3: "call"}


@click.command()
@click.option("-p", "--pid", type=int, required=True, help="The process.")
@click.option("--sites", "show_sites", is_flag=True, help="Every site that calls something.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(pid: int, show_sites: bool, as_json: bool) -> None:
    """Show which ops are attached to a process and which functions call what.

    Nothing is stopped.
    """
    target = Target(pid)
    try:
        found = _settled(target, show_sites)
    finally:
        target.close()
    click.echo(json.dumps(found) if as_json else text_of(found), nl=as_json)


def _settled(target: Target, with_sites: bool) -> dict[str, Any]:
    # It is read without the lock: a controller that leaves meanwhile takes it away.
    for _ in range(_TRIES):
        with suppress(PatchError):
            return describe(target, with_sites)
    return describe(target, with_sites)


def describe(target: Target, with_sites: bool) -> dict[str, Any]:
    """What the registry of a process says, as plain values."""
    found: dict[str, Any] = {"pid": target.pid, "state": "not traced"}
    try:
        region = Region.open(target.memory, read_maps(target.pid))
    except RegionError as error:
        return found | {"state": "unfinished", "why": error.what}
    if region is None:
        return found
    registry = region.registry
    inherited, owner = registry.is_inherited(), region.owner()
    sites = registry.sites
    calling = sites[sites["state"] == SiteState.CALL]
    found["state"] = "inherited by fork, silent" if inherited else "traced"
    found["owner"] = owner
    found["children"] = [] if inherited else inheritors_of(target.pid)
    found["generation"] = int(registry.header["generation"])
    found["sites"] = len(calling)
    names = {s.instance: s.name for s in region.of_kind(Kind.RING)}
    functions = {s.instance: s.name for s in region.of_kind(Kind.DATA)}
    found["ops"] = [
        {
            "id": int(row["id"]),
            "callback": CALLBACKS.get(int(row["callback"]), "?"),
            "filter": bytes(row["filter"]).decode(errors="replace"),
            "functions": int(row["nr_sites"]),
            "instance": names.get(int(row["instance"]), ""),
            "function": functions.get(int(row["id"]), ""),
            "flags": _flags(int(row["flags"])),
        }
        for row in registry.ops[registry.ops["state"] == State.LIVE]
    ]
    found["bytes"] = {
        kind.name.lower(): sum(s.bytes for s in region.of_kind(kind)) for kind in Kind
    }
    found["bytes"]["registry"] = registry.bytes
    if with_sites:
        found["calls"] = _calls(target, region, calling)
    return found


def _flags(value: int) -> list[str]:
    return [str(flag.name) for flag in Flags if flag & value]


def _calls(target: Target, region: Region, calling: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    modules = load_modules(target.pid, read_maps(target.pid), target.memory.read_some)
    symbols = SymbolTable(modules, implementations(modules, target.memory.read_some))
    trampolines = region.registry.trampolines
    calls = []
    for row in calling[np.argsort(calling["ip"])]:
        name, _, module = symbols.resolve(int(row["ip"]))
        count = int(trampolines[int(row["trampoline"])]["nr_ops"])
        calls.append(
            {
                "name": name,
                "module": module.name if module else "",
                "ip": int(row["ip"]),
                "ops": count,
                "trampoline": int(row["call"]),
            }
        )
    return calls


def text_of(found: dict[str, Any]) -> str:
    """What describe() found, as lines for people."""
    lines = [f"{found['pid']}: {found['state']}"]
    if "why" in found:
        lines[0] += f" ({found['why']})"
    if "ops" in found:
        owner = found["owner"]
        by = f"process {owner} ({command_of(owner)})" if owner else "nobody: its controller is gone"
        lines.append(f"  owner       {by}")
        if found["children"]:
            pids = " ".join(map(str, found["children"]))
            lines.append(f"  children    {pids} (forked while traced; silent)")
        lines.append(f"  generation  {found['generation']}")
        lines.append(f"  sites       {found['sites']}")
        sizes = ", ".join(
            f"{kind} {count >> 10}K" for kind, count in found["bytes"].items() if count
        )
        lines.append(f"  memory      {sizes}")
        for ops in found["ops"]:
            where = f" in {ops['instance']}" if ops["instance"] else ""
            called = " ".join(["", ops["function"], *ops["flags"]]) if ops["function"] else ""
            lines.append(
                f"  ops {ops['id']:<7} {ops['callback']}{called}{where} {ops['filter']} "
                f"({ops['functions']} functions)"
            )
        if not owner:
            pid = found["pid"]
            lines.append(f"  next        fentry detach -p {pid}, or fentry record --adopt -p {pid}")
    for call in found.get("calls", ()):
        where = f" [{call['module']}]" if call["module"] else ""
        lines.append(f"{call['name']}{where} ({call['ops']})\ttramp: {call['trampoline']:#x}")
    return "\n".join(lines) + "\n"
