"""fentry symfile: the names of generated code for gdb and perf."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import click
import numpy as np

from fentry.cli.status import CALLBACKS
from fentry.errors import BadInput
from fentry.formats.symbol_names import printable
from fentry.formats.symfile import Piece, elf_file, perf_map
from fentry.process.maps import read_maps
from fentry.process.proc import read_status
from fentry.process.target import Target
from fentry.region.layout import Kind, SiteState, State
from fentry.region.region import Region
from fentry.sites.pad import CALL_OFFSET, PAD_BYTES
from fentry.symbols.module import load_modules
from fentry.symbols.table import SymbolTable
from fentry.x86.unwind import Row, frame_rows


@click.command()
@click.option("-p", "--pid", type=int, required=True, help="The process.")
@click.option("-o", "--output", help="File for gdb. Default: fentry-PID.sym.")
@click.option("--perf", is_flag=True, help="Write /tmp/perf-PID.map, for perf, instead.")
def symfile(pid: int, output: str | None, perf: bool) -> None:
    """Write names (and frames) of the code that fentry has placed in a process.

    With it gdb and perf name trampolines and pads, and gdb unwinds through them. Nothing is
    stopped; what is registered later is not in it.
    """
    with closing(Target(pid)) as target:
        region = Region.open(target.memory, read_maps(pid))
        if region is None:
            raise BadInput(f"process {pid} is not traced", remedy=f"fentry record -p {pid} -F GLOB")
        segments = [(s.address, s.bytes) for s in region.of_kind(Kind.CODE)]
        pieces = sorted(_pieces(target, region, segments), key=lambda one: one.address)
    if perf:
        path = Path(output or f"/tmp/perf-{read_status(pid).ns_pid}.map")
        _write(path, perf_map(pieces).encode())
        after = f"perf report, or perf script, of a recording of {pid}"
    else:
        path = Path(output or f"fentry-{pid}.sym")
        _write(path, elf_file(segments, pieces))
        after = f"gdb -p {pid} -ex 'add-symbol-file {path}'"
    click.echo(f"{len(pieces)} pieces of code named in {path}; next: {after}", err=True)


def _write(path: Path, content: bytes) -> None:
    # Never through a link, and not over what somebody else keeps there: a JIT has a map of its own
    # where perf looks for it, and everybody may make files there.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "rb+") as file:
        found = os.fstat(file.fileno())
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if not is_ours or not _is_made_here(file.read()):
            raise BadInput(
                f"{path} exists and is not of fentry",
                cause="a program that makes code may keep its map there",
                remedy="another file with -o",
            )
        file.seek(0)
        file.truncate()
        file.write(content)


def _is_made_here(content: bytes) -> bool:
    if content.startswith(b"\x7fELF"):
        return b"fentry_" in content
    return all(b" fentry_" in line for line in content.splitlines())


def _pieces(target: Target, region: Region, segments: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    def is_code(address: int, size: int) -> bool:
        return any(
            start <= address and address + size <= start + count for start, count in segments
        )

    for address, size, name in _trampolines(region):
        if is_code(address, size):
            yield Piece(name, address, size, tuple(frame_rows(target.memory.read(address, size))))
    sites = region.registry.sites
    sites = sites[(sites["state"] != SiteState.GONE) & (sites["pad"] != 0)]
    modules = load_modules(target.pid, read_maps(target.pid), target.memory.read_some)
    names = SymbolTable(modules)
    for row in sites[np.argsort(sites["pad"])]:
        pad = int(row["pad"])
        if is_code(pad, PAD_BYTES):
            name, _, _ = names.resolve(int(row["ip"]))
            rows = () if row["part"] else _pad_rows(target.memory.read(pad, PAD_BYTES))
            yield Piece(f"fentry_pad:{_one_word(name)}", pad, PAD_BYTES, rows)


def _trampolines(region: Region) -> Iterator[tuple[int, int, str]]:
    ops = {int(row["id"]): row for row in region.registry.ops if row["state"] == State.LIVE}
    rows = region.registry.trampolines
    for row in rows[rows["state"] != State.FREE]:
        ids = row["ops"][: int(row["nr_ops"])].tolist()
        words = [
            f"{CALLBACKS.get(int(ops[one]['callback']), '?')}_{one}" if one in ops else str(one)
            for one in ids
        ]
        yield int(row["address"]), int(row["bytes"]), f"fentry_trampoline:{'+'.join(words)}"


def _pad_rows(code: bytes) -> tuple[Row, ...]:
    # It is entered by a jump at its call, as the function is: the caller is where it would be.
    rows = frame_rows(code[CALL_OFFSET:])
    return tuple(Row(r.offset + CALL_OFFSET, r.register, r.distance, r.saved) for r in rows)


def _one_word(name: str) -> str:
    return "".join(printable(name.encode("utf-8", "replace")).decode(errors="replace").split())
