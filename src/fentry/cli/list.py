"""fentry list: the functions of a process or file, what can be traced, and why not."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import click
import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput
from fentry.process.target import Target
from fentry.sites.find import analyse
from fentry.sites.functions import Functions, no_match, traceable_row
from fentry.sites.site import SiteKind, reasons_by_value
from fentry.sites.table import SiteTable
from fentry.symbols.module import Module, module_of_file, open_image
from fentry.symbols.patterns import Pattern, choose
from fentry.symbols.table import SymbolTable


@dataclass(frozen=True, slots=True)
class Listed:
    """One function: ip in the target (or vaddr of a file), reason "" if it can be traced; then
    its index among those that can."""

    index: int | None
    module: str
    name: str
    ip: int
    reason: str
    also: tuple[str, ...] = ()
    blocker: int | None = None  # the address of what is in the way


@click.command(name="list")
@click.option("-p", "--pid", type=int, help="A live process.")
@click.option("--refused", is_flag=True, help="Only functions that cannot be traced.")
@click.option("--count", "only_counts", is_flag=True, help="Only the counts by reason.")
@click.option("--index", "indexed", is_flag=True, help="With the number that -F takes.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
@click.argument("words", nargs=-1, metavar="[FILE] [GLOB...]")
def list_(
    pid: int | None,
    refused: bool,
    only_counts: bool,
    indexed: bool,
    as_json: bool,
    words: tuple[str, ...],
) -> None:
    """List functions of a process (-p PID) or of a FILE that match the GLOBs.

    MODULE!GLOB, re:EXPR, 0xADDRESS, indexes and !GLOB are as for -F of record. Each line is
    MODULE!NAME and, behind a tab, why it cannot be traced. Nothing is stopped.
    """
    file, patterns = (words[0], words[1:]) if pid is None and words else ("", words)
    if pid is None and not file:
        raise BadInput("say which functions: -p PID, or a FILE", remedy="fentry list -h")
    listed = [
        one
        for one in (_of_process(pid, patterns) if pid is not None else _of_file(file, patterns))
        if one.reason or not refused
    ]
    if not only_counts:
        for one in listed:
            click.echo(_line(one, as_json, indexed))
    traceable = sum(not one.reason for one in listed)
    click.echo(
        f"{traceable} traceable + {len(listed) - traceable} refused = {len(listed)}", err=True
    )
    for reason, count in Counter(one.reason for one in listed if one.reason).most_common():
        click.echo(f"{count:8} {reason}", err=not only_counts)


def _line(one: Listed, as_json: bool, indexed: bool) -> str:
    if as_json:
        return json.dumps(
            {
                "index": one.index,
                "module": one.module,
                "name": one.name,
                "also": one.also,
                "ip": one.ip,
                "traceable": not one.reason,
                "reason": one.reason,
                "blocker": one.blocker,
            }
        )
    number = f"{one.index or '-':>7} " if indexed else ""
    names = ", ".join((one.name, *one.also))
    at = f" (0x{one.blocker:x})" if one.blocker is not None else ""
    return f"{number}{one.module}!{names}" + (f"\t{one.reason}{at}" if one.reason else "")


def _of_process(pid: int, patterns: tuple[str, ...]) -> Iterator[Listed]:
    target = Target(pid)
    try:
        functions = Functions(pid, target)
        functions.analyse()
        yield from _rows(
            functions.modules, functions.table, functions.symbols, patterns, functions.blockers
        )
    finally:
        target.close()


def _of_file(path: str, patterns: tuple[str, ...]) -> Iterator[Listed]:
    if not os.path.isfile(path):
        raise BadInput(f"no such file: {path}", remedy="-p PID for a process")
    module = module_of_file(path, open_image(path))
    found = analyse(module.image)
    table = SiteTable.build([(0, found)])
    yield from _rows([module], table, SymbolTable([module]), patterns, found.blockers)


def _rows(
    modules: list[Module],
    table: SiteTable,
    symbols: SymbolTable,
    patterns: tuple[str, ...],
    blockers: Mapping[int, int],
) -> Iterator[Listed]:
    def match(pattern: Pattern) -> NDArray[np.bool_]:
        found = np.zeros(len(table), np.bool_)
        if pattern.index is not None:
            found[traceable_row(table, pattern.index)] = True
        else:
            rows = table.rows_of(np.asarray(symbols.match(pattern.text), np.uint64))
            found[rows[rows >= 0]] = True
        if not found.any() and not pattern.removes:
            raise no_match(pattern.text, symbols)
        return found

    chosen = choose(patterns, len(table), match)
    index = np.cumsum(table.traceable)
    reasons = reasons_by_value()
    for i in np.flatnonzero(chosen).tolist():
        ip = int(table.ip[i])
        name, _, _ = symbols.resolve(ip)
        refused = table.kind[i] == SiteKind.REFUSED
        reason = reasons[int(table.reason[i])].text if refused else ""
        number = None if refused else int(index[i])
        also = tuple(symbols.other_names(ip))
        blocker = blockers.get(ip) if refused else None
        module = modules[int(table.module[i])].name
        yield Listed(number, module, name, ip, reason, also, blocker)
