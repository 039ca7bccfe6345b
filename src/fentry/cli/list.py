"""fentry list: the functions of a process or file, what can be traced, and why not."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import click
import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput
from fentry.process.target import Target
from fentry.sites.find import analyse
from fentry.sites.functions import Functions, either, no_match, traceable_row
from fentry.sites.site import SiteKind, reasons_by_value
from fentry.sites.table import SiteTable
from fentry.symbols.gaps import unknown_code
from fentry.symbols.module import Module, module_of_file, open_image
from fentry.symbols.patterns import PART, Pattern, choose, parse
from fentry.symbols.table import SymbolTable

_LEAST_UNKNOWN = 0.01


@dataclass(frozen=True, slots=True)
class Listed:
    """One function, or part of one: ip in the target (or vaddr of a file), reason "" if it can be
    traced; then, where it is asked for, its index among those that can."""

    index: int | None
    module: str
    name: str
    ip: int
    is_part: bool  # of another function
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

    MODULE!GLOB, re:EXPR, 0xADDRESS, indexes, part:WORD and !WORD are as for -F of record; without
    any all are listed, parts of functions as well. Each line is MODULE!NAME, or part:MODULE!NAME,
    and, behind a tab, why it cannot be traced. Nothing is stopped.
    """
    file, patterns = (words[0], words[1:]) if pid is None and words else ("", words)
    if pid is None and not file:
        raise BadInput("say which functions: -p PID, or a FILE", remedy="fentry list -h")
    modules: list[Module] = []
    every = (
        _of_process(pid, patterns, modules, numbered=indexed or as_json)
        if pid is not None
        else _of_file(file, patterns, modules)
    )
    listed = [one for one in every if one.reason or not refused]
    if not only_counts:
        for one in listed:
            click.echo(_line(one, as_json, indexed))
    click.echo(_sum(listed), err=True)
    parts = [one for one in listed if one.is_part]
    if parts:
        click.echo(f"  of these {_sum(parts)} are parts of functions", err=True)
    for reason, count in Counter(one.reason for one in listed if one.reason).most_common():
        click.echo(f"{count:8} {reason}", err=not only_counts)
    if not patterns:
        for line in filter(None, map(_unknown, modules)):
            click.echo(line, err=True)


def _unknown(module: Module) -> str:
    # What a list of functions cannot say by itself: how much it does not hold.
    unknown, total = unknown_code(module.image)
    if module.name.startswith("[") or unknown < _LEAST_UNKNOWN * total:  # the vDSO is refused
        return ""
    return (
        f"{module.name}: {unknown:,} of {total:,} bytes of code are of no function that a symbol "
        "or a frame description tells of: assembly, constants, or functions that are not listed"
    )


def _sum(listed: Sequence[Listed]) -> str:
    traceable = sum(not one.reason for one in listed)
    return f"{traceable} traceable + {len(listed) - traceable} refused = {len(listed)}"


def _line(one: Listed, as_json: bool, indexed: bool) -> str:
    if as_json:
        return json.dumps(
            {
                "index": one.index,
                "module": one.module,
                "name": one.name,
                "kind": "part" if one.is_part else "function",
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
    kind = PART if one.is_part else ""
    return f"{number}{kind}{one.module}!{names}" + (f"\t{one.reason}{at}" if one.reason else "")


def _of_process(
    pid: int, patterns: tuple[str, ...], modules: list[Module], *, numbered: bool
) -> Iterator[Listed]:
    # Fills `modules` as well. To number functions the sites of all modules have to be known, else
    # only those of the modules that have one of the patterns.
    numbered |= not patterns or any(parse(word).index is not None for word in patterns)
    target = Target(pid)
    try:
        functions = Functions(pid, target)
        if numbered:
            functions.analyse()
        modules += functions.modules
        yield from _rows(
            functions.modules, functions.table, functions.symbols, patterns, functions.blockers,
            find=None if numbered else functions.analyse,
        )  # fmt: skip
    finally:
        target.close()


def _of_file(path: str, patterns: tuple[str, ...], modules: list[Module]) -> Iterator[Listed]:
    if not os.path.isfile(path):
        raise BadInput(f"no such file: {path}", remedy="-p PID for a process")
    module = module_of_file(path, open_image(path))
    if not len(module.image.functions):
        raise BadInput(
            f"no function of {path} is known",
            cause="it has neither symbols nor frame descriptions (.eh_frame)",
        )
    modules.append(module)
    found = analyse(module.image)
    table = SiteTable.build([(0, found)])
    yield from _rows([module], table, SymbolTable([module]), patterns, found.blockers)


def _rows(
    modules: list[Module],
    table: SiteTable,
    symbols: SymbolTable,
    patterns: tuple[str, ...],
    blockers: Mapping[int, int],
    *,
    find: Callable[[NDArray[np.bool_]], None] | None = None,
) -> Iterator[Listed]:
    # `find` finds the sites of chosen functions, where not all are known: then without numbers.
    def as_part(pattern: Pattern) -> NDArray[np.bool_]:
        return of(pattern, symbols.match_parts)

    def match(pattern: Pattern) -> NDArray[np.bool_]:
        found = of(pattern, symbols.match)
        if not pattern.removes and not (found | as_part(pattern)).any():
            raise no_match(pattern.text, symbols)
        return found & (not pattern.part)

    def of(pattern: Pattern, matches: Callable[[str], NDArray[np.uint64]]) -> NDArray[np.bool_]:
        found = np.zeros(len(table), np.bool_)
        if pattern.index is not None:
            found[traceable_row(table, pattern.index)] = True
        else:
            rows = table.rows_of(np.asarray(matches(pattern.text), np.uint64))
            found[rows[rows >= 0]] = True
        return found

    words = patterns or ("*", f"{PART}*")
    functions = choose(words, len(table), match)
    parts = choose(words, len(table), as_part, from_all=False)
    if find is not None:
        find(functions | parts)
    chosen = either(table, functions, parts, words)
    index = np.cumsum(table.traceable)
    reasons = reasons_by_value()
    names = symbols.names_at(table.ip[chosen])
    for i, name in zip(np.flatnonzero(chosen).tolist(), names, strict=True):
        ip = int(table.ip[i])
        refused = table.kind[i] == SiteKind.REFUSED
        reason = reasons[int(table.reason[i])].text if refused else ""
        number = None if refused or find is not None else int(index[i])
        also = tuple(symbols.other_names(ip))
        blocker = blockers.get(ip) if refused else None
        module = modules[int(table.module[i])].name
        yield Listed(number, module, name, ip, bool(table.part[i]), reason, also, blocker)
