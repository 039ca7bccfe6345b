"""What report and dump say of a core file."""

from __future__ import annotations

import click

from fentry.formats.symbol_names import printable
from fentry.process.core_file import CoreFile
from fentry.snapshot import write_snapshot
from fentry.snapshot.core import CoreSource


def recover_from(path: str, out: str | int) -> None:
    """Write what a core file has into a trace, and say what of it has no names. Raises as
    CoreSource and write_snapshot()."""
    with CoreFile(path) as core:
        found = write_snapshot(CoreSource(core), out)
    for line in found.unnamed:
        shown = printable(line.encode("utf-8", "replace")).decode()
        click.echo(f"no names of {shown}", err=True)
    click.echo(f"{found.events} events of process {core.pid} in {path}", err=True)
