"""Which trace a command reads: a file, several of one recording, a pipe, or a core file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import click

from fentry.errors import BadInput
from fentry.formats.tracefile import TraceReader
from fentry.formats.tracefile_set import TraceSet

Trace = TraceReader | TraceSet

inputs_option = click.option(
    "-i", "--input", "paths", multiple=True, default=("trace.fentry",), show_default=True,
    metavar="FILE", help="Trace file, or -. Several of one recording are shown as one.",
)  # fmt: skip


@contextmanager
def opened(
    paths: tuple[str, ...], *, rotated: bool = False, core: str | None = None
) -> Iterator[Trace]:
    """The trace in these files; `rotated`: with FILE.1, FILE.2 ... of the one file; `core`: what a
    core file has, in place of files. Raises BadInput, and as TraceReader and TraceSet."""
    if core is not None:
        with _recovered(core) as trace:
            yield trace
        return
    with _opened(paths, rotated) as found:
        yield found


def _opened(paths: tuple[str, ...], rotated: bool) -> Trace:
    if rotated and len(paths) == 1 and paths[0] != "-":
        return TraceSet.rotated(paths[0])
    if rotated or (len(paths) > 1 and "-" in paths):
        raise BadInput(
            "--rotated goes with one file" if rotated else "standard input is read alone",
            remedy="-i FILE for each file",
        )
    if len(paths) > 1:
        return TraceSet(paths)
    return TraceReader("/dev/stdin" if paths[0] == "-" else paths[0])


@contextmanager
def _recovered(core: str) -> Iterator[TraceReader]:
    from fentry.cli.core import recover_from

    with tempfile.TemporaryFile() as file:
        recover_from(core, file.fileno())
        with TraceReader(f"/proc/self/fd/{file.fileno()}") as trace:
            yield trace
