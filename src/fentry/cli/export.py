"""fentry export: a trace for another tool."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from fentry.cli.selection import Selection, input_option, selection_options
from fentry.errors import BadInput, FentryError
from fentry.formats.exports import FORMATS, Source, write
from fentry.formats.symbol_names import SymbolNames
from fentry.formats.task_names import TaskNames
from fentry.formats.tracefile import TraceReader

_EPILOG = "Formats: " + "; ".join(f"{name}: {row.what}" for name, row in FORMATS.items()) + "."


@click.command(epilog=_EPILOG)
@click.argument("form", metavar="FORMAT", type=click.Choice(list(FORMATS)))
@input_option
@click.option("-o", "--output", help="File or folder to write. Default: the trace's name, changed.")
@click.option("--force", is_flag=True, help="Write over what is there.")
@selection_options
def export(form: str, path: str, output: str | None, force: bool, **chosen: Any) -> None:
    """Write a recorded trace in the format of another tool."""
    with TraceReader("/dev/stdin" if path == "-" else path) as trace:
        symbols, tasks = SymbolNames.of_trace(trace), TaskNames(trace.tasks)
        selection = Selection(trace, symbols, tasks, **chosen)
        out = Path(output or default_output(path, form))
        _check(out, force)
        part = out.with_name(f"{out.name}.{os.getpid()}.part")
        before = os.umask(0o077)  # as a trace: addresses and names are not for everybody
        try:
            write(form, Source(trace, symbols, tasks, selection), part)
            _check(out, force)  # it may have come meanwhile
            if force:
                _remove(out)
            part.rename(out)
        except OSError as error:
            raise FentryError(
                f"cannot write {out}", cause=os.strerror(error.errno or 0).lower()
            ) from error
        finally:
            os.umask(before)
            _remove(part)
        _report(trace, selection.shown, out, form)


def default_output(path: str, form: str) -> str:
    """The name of what is exported from a trace: beside it, with the suffix of the format."""
    stem = "trace" if path == "-" else path.removesuffix(".fentry")
    return stem + FORMATS[form].suffix


def _check(out: Path, force: bool) -> None:
    if out.name in ("", ".."):
        raise BadInput(f"{out} is no name for a file", remedy="another name with -o")
    if not os.path.lexists(out):
        return
    if not force:
        raise BadInput(f"{out} exists", remedy="another name with -o, or --force")
    if out.is_dir() and not out.is_symlink() and not _is_export(out):
        raise BadInput(
            f"{out} is a folder that no export made",
            cause="with --force all that is in it would go",
            remedy="another name with -o",
        )


def _is_export(folder: Path) -> bool:
    # A folder of CTF or uftrace, by how their first files begin.
    return _begins(folder / "metadata", b"/* CTF") or _begins(folder / "info", b"Ftrace!")


def _begins(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _report(trace: TraceReader, shown: int, out: Path, form: str) -> None:
    lost = sum(cpu.dropped_events + cpu.overrun + cpu.incomplete for cpu in trace.losses)
    parts = [f"{shown} of {trace.records} events to {out} ({FORMATS[form].what})", f"{lost} lost"]
    if trace.torn:
        parts.append(f"{trace.torn} torn")
    if trace.damage:
        parts.append(f"damaged in {len(trace.damage)} places, first: {trace.damage[0].what}")
    click.echo(", ".join(parts), err=True)
