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
from fentry.process.target import Target
from fentry.region.inherited import inheritors_of
from fentry.region.layout import HeaderFlag, Kind, SiteState, State
from fentry.region.owners import Owner
from fentry.region.region import Region
from fentry.symbols.ifuncs import implementations
from fentry.symbols.module import load_modules
from fentry.symbols.table import SymbolTable

_TRIES = 10
_NOBODY = "nobody: its controller is gone"

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
    inherited = registry.is_inherited()
    owners = region.owners.every
    sites = registry.sites
    followed = region.is_followed
    child = "inherited by fork, followed" if followed else "inherited by fork, silent"
    found["state"] = child if inherited else "traced"
    found["follows"] = followed
    found["owner"] = next((one.pid for one in owners if one.is_alive), 0)
    found["owners"] = [_owner(one) for one in owners]
    found["children"] = [] if inherited else inheritors_of(target.pid)
    found["enabled"] = not int(registry.header["flags"]) & HeaderFlag.OFF
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


def _owner(owner: Owner) -> dict[str, Any]:
    alive = owner.is_alive
    return {
        "number": owner.number, "pid": owner.pid, "alive": alive,
        "name": owner.text if alive else "",
    }  # fmt: skip


def _flags(value: int) -> list[str]:
    return [str(flag.name) for flag in Flags if flag & value & ~(Flags.PID | Flags.DIRECT)]


def _ops(target: Target, region: Region, *, inherited: bool) -> list[dict[str, Any]]:
    registry = region.registry
    names = {s.instance: s.name for s in region.of_kind(Kind.RING)}
    functions = {s.instance: s.name for s in region.of_kind(Kind.DATA)}
    found = []
    for row in registry.ops[registry.ops["state"] == State.LIVE]:
        callback = CALLBACKS.get(int(row["callback"]), "?")
        one: dict[str, Any] = {
            "id": int(row["id"]),
            "owner": int(row["owner"]),
            "callback": callback,
            "filter": bytes(row["filter"]).decode(errors="replace"),
            "functions": int(row["nr_sites"]),
            "instance": names.get(int(row["instance"]), ""),
            "threads": "" if inherited else _threads(target, region, row),
            "function": functions.get(int(row["id"]), ""),
            "flags": _flags(int(row["flags"])),
        }
        if callback == "count":
            one["hits"] = int(hits(region, int(row["slot"]), int(row["owner"])).sum())
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
    owners = found["owners"]
    several = len(owners) > 1
    lines = [_owner_line(one, several) for one in owners] or [f"  owner       {_NOBODY}"]
    if found["children"]:
        pids = " ".join(map(str, found["children"]))
        how = "followed" if found["follows"] else "silent"
        lines.append(f"  children    {pids} (forked while traced; {how})")
    lines.append(f"  generation  {found['generation']}")
    off = "" if found["enabled"] else " (switched off)"
    lines.append(f"  sites       {found['sites']}{off}")
    sizes = ", ".join(f"{kind} {count >> 10}K" for kind, count in found["bytes"].items() if count)
    lines.append(f"  memory      {sizes}")
    lines += [_ops_line(one, several) for one in found["ops"]]
    lines += [_ring_line(one, several) for one in found["instances"]]
    if not owners or not all(one["alive"] for one in owners):
        pid = found["pid"]
        force = "--force " if any("PERMANENT" in ops["flags"] for ops in found["ops"]) else ""
        lines.append(
            f"  next        fentry detach {force}-p {pid}, or fentry record --adopt -p {pid}"
        )
    return lines


def _owner_line(owner: dict[str, Any], several: bool) -> str:
    # Of several each has its number, which the lines of its ops and rings repeat.
    word = f"owner {owner['number']}" if several else "owner"
    gone = f", process {owner['pid']}" if several and owner["pid"] else ""
    return f"  {word:<11} {owner['name'] or _NOBODY + gone}"


def _ops_line(ops: dict[str, Any], several: bool) -> str:
    where = f" in {ops['instance']}" if ops["instance"] else ""
    counted = f", {ops['hits']} hits" if "hits" in ops else ""
    called = "".join(f" {word}" for word in (ops["function"], *ops["flags"]) if word)
    return (
        f"  ops {ops['id']:<7} {ops['callback']}{called}{where} {ops['filter']} "
        f"({ops['functions']} functions{counted})"
        + (f", threads {ops['threads']}" if ops["threads"] else "")
        + (f", owner {ops['owner']}" if several else "")
    )


def _ring_line(ring: dict[str, Any], several: bool) -> str:
    name = f" of {ring['name']}" if ring["name"] else ""
    clock = "" if ring["clock"] == "tsc" else f", clock {ring['clock']}"
    off = "" if ring["tracing_on"] else "; tracing is off"
    return (
        f"  ring{name + ' ':<8}{ring['records']} records, {ring['unread']} of them not read yet, "
        f"{ring['dropped']} dropped{clock}{off}" + (f", owner {ring['owner']}" if several else "")
    )
