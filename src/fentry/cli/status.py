"""fentry status: what is attached to a process, as its registry has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import click
import numpy as np

from fentry.cli.enabled_functions import as_values, lines_of
from fentry.dispatch.ops import Callback, Flags
from fentry.dispatch.records import Record, records
from fentry.dispatch.seen import threads_text
from fentry.dispatch.tallies import hits, ring_tallies
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

CALLBACKS = {int(one): one.name.lower() for one in Callback}


@click.command()
@click.option("-p", "--pid", type=int, required=True, help="The process.")
@click.option("--sites", "show_sites", is_flag=True, help="Every function that calls something.")
@click.option("--touched", is_flag=True, help="Every function that did since the attach.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(pid: int, show_sites: bool, touched: bool, as_json: bool) -> None:
    """Show which ops are attached to a process and which functions call what.

    --sites is the kernel's enabled_functions, --touched its touched_functions. Nothing is stopped.
    """
    target = Target(pid)
    try:
        found = _settled(target, show_sites, touched)
    finally:
        target.close()
    click.echo(json.dumps(found) if as_json else text_of(found), nl=as_json)


def _settled(target: Target, with_sites: bool, touched: bool) -> dict[str, Any]:
    # It is read without the lock: a controller that leaves meanwhile takes it away.
    for _ in range(_TRIES):
        with suppress(PatchError):
            return describe(target, with_sites, touched)
    return describe(target, with_sites, touched)


def describe(target: Target, with_sites: bool, touched: bool = False) -> dict[str, Any]:
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
    found["state"] = "inherited by fork, silent" if inherited else "traced"
    found["owner"] = owner
    found["children"] = [] if inherited else inheritors_of(target.pid)
    found["generation"] = int(registry.header["generation"])
    found["sites"] = int((sites["state"] == SiteState.CALL).sum())
    found["ops"] = _ops(target, region, inherited=inherited)
    found["instances"] = [asdict(one) for one in ring_tallies(region)]
    found["bytes"] = {
        kind.name.lower(): sum(s.bytes for s in region.of_kind(kind)) for kind in Kind
    }
    found["bytes"]["registry"] = registry.bytes
    every = records(region) if with_sites or touched else []
    if with_sites:
        enabled = [one for one in every if one.is_enabled]
        found["calls"] = _functions(target, enabled, found["ops"])
    if touched:
        found["touched"] = _functions(target, every, found["ops"])
    return found


def _flags(value: int) -> list[str]:
    return [str(flag.name) for flag in Flags if flag & value & ~Flags.PID]


def _ops(target: Target, region: Region, *, inherited: bool) -> list[dict[str, Any]]:
    registry = region.registry
    names = {s.instance: s.name for s in region.of_kind(Kind.RING)}
    functions = {s.instance: s.name for s in region.of_kind(Kind.DATA)}
    found = []
    for row in registry.ops[registry.ops["state"] == State.LIVE]:
        callback = CALLBACKS.get(int(row["callback"]), "?")
        one: dict[str, Any] = {
            "id": int(row["id"]),
            "callback": callback,
            "filter": bytes(row["filter"]).decode(errors="replace"),
            "functions": int(row["nr_sites"]),
            "instance": names.get(int(row["instance"]), ""),
            "threads": "" if inherited else _threads(target, region, row),
            "function": functions.get(int(row["id"]), ""),
            "flags": _flags(int(row["flags"])),
        }
        if callback == "count":
            one["hits"] = int(hits(region, int(row["slot"])).sum())
        found.append(one)
    return found


def _threads(target: Target, region: Region, row: np.void) -> str:
    # Which threads an ops sees, "" for all.
    if not int(row["flags"]) & Flags.PID:
        return ""
    tables = [s for s in region.of_kind(Kind.THREADS) if s.instance == int(row["id"])]
    return threads_text(target.pid, target.memory, tables[-1].address) if tables else "?"


def _functions(
    target: Target, chosen: Sequence[Record], ops: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    modules = load_modules(target.pid, read_maps(target.pid), target.memory.read_some)
    symbols = SymbolTable(modules, implementations(modules, target.memory.read_some))
    by_id = {one["id"]: one for one in ops}
    found = []
    for record in chosen:
        name, module = f"{record.ip:#x}", None
        if not record.is_gone:
            name, _, module = symbols.resolve(record.ip)
        found.append(as_values(record, (name, module.name if module else ""), by_id))
    return found


def text_of(found: dict[str, Any]) -> str:
    """What describe() found, as lines for people."""
    lines = [f"{found['pid']}: {found['state']}"]
    if "why" in found:
        lines[0] += f" ({found['why']})"
    if "ops" in found:
        lines += _summary(found)
    for word in ("calls", "touched"):
        for call in found.get(word, ()):
            lines += lines_of(call)
    return "\n".join(lines) + "\n"


def _summary(found: dict[str, Any]) -> list[str]:
    owner = found["owner"]
    by = f"process {owner} ({command_of(owner)})" if owner else "nobody: its controller is gone"
    lines = [f"  owner       {by}"]
    if found["children"]:
        pids = " ".join(map(str, found["children"]))
        lines.append(f"  children    {pids} (forked while traced; silent)")
    lines.append(f"  generation  {found['generation']}")
    lines.append(f"  sites       {found['sites']}")
    sizes = ", ".join(f"{kind} {count >> 10}K" for kind, count in found["bytes"].items() if count)
    lines.append(f"  memory      {sizes}")
    for ops in found["ops"]:
        where = f" in {ops['instance']}" if ops["instance"] else ""
        counted = f", {ops['hits']} hits" if "hits" in ops else ""
        called = " ".join(["", ops["function"], *ops["flags"]]) if ops["function"] else ""
        lines.append(
            f"  ops {ops['id']:<7} {ops['callback']}{called}{where} {ops['filter']} "
            f"({ops['functions']} functions{counted})"
            + (f", threads {ops['threads']}" if ops["threads"] else "")
        )
    lines += map(_ring_line, found["instances"])
    if not owner:
        pid = found["pid"]
        lines.append(f"  next        fentry detach -p {pid}, or fentry record --adopt -p {pid}")
    return lines


def _ring_line(ring: dict[str, Any]) -> str:
    name = f" of {ring['name']}" if ring["name"] else ""
    off = "" if ring["tracing_on"] else "; tracing is off"
    return (
        f"  ring{name + ' ':<8}{ring['records']} records, {ring['unread']} of them not read yet, "
        f"{ring['dropped']} dropped{off}"
    )
