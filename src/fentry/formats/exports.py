"""What a trace can be exported to: one file a format, each with a function `write`.

A new format is a file beside this one with

    def write(source: Source, out: Path) -> None

that makes `out`, a file or a folder, and a row in FORMATS.  `out` does not exist before; what is
left of it after an error is removed by the caller.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from fentry.errors import BadInput
from fentry.events.columns import Events
from fentry.formats.symbol_names import SymbolNames
from fentry.formats.task_names import TaskNames
from fentry.formats.tracefile_reader import TraceReader


class Selected(Protocol):
    """The chosen events of a trace."""

    def merged(self) -> Iterator[Events]:
        """The events in order of time (of each CPU, where there are no times)."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """What an exporter writes: a trace, the names of its functions and threads, chosen events.

    The events of `selected` can be asked for once, or several times by a format that needs it.
    """

    trace: TraceReader
    symbols: SymbolNames
    tasks: TaskNames
    selected: Selected


class Format(NamedTuple):
    """A row of the table: the module that has `write`, what reads it, and how a name of it ends."""

    module: str
    what: str
    suffix: str


FORMATS = {
    "chrome": Format("fentry.formats.chrome", "Chrome JSON: chrome://tracing, Perfetto", ".json"),
    "trace.dat": Format("fentry.formats.trace_dat", "trace-cmd report, KernelShark", ".dat"),
    "uftrace": Format("fentry.formats.uftrace_folder", "uftrace replay, report, dump", ".uftrace"),
    "perfetto": Format("fentry.formats.perfetto", "Perfetto protobuf: ui.perfetto.dev", ".pftrace"),
    "parquet": Format("fentry.formats.parquet", "Parquet: DuckDB, Spark, pandas", ".parquet"),
    "ctf": Format("fentry.formats.ctf", "Common Trace Format: babeltrace2, Trace Compass", ".ctf"),
}


def write(name: str, source: Source, out: Path) -> None:
    """Write a trace in the format `name`. Raises BadInput when the trace does not fit the format,
    and OSError."""
    importlib.import_module(FORMATS[name].module).write(source, out)


def need_times(source: Source, name: str) -> None:
    """Refuse a trace whose records have no time. Raises BadInput."""
    if not source.trace.has_time:
        raise BadInput(
            f"{name} needs times, and this trace has none",
            cause="it was recorded with --clock percpu-counter",
            remedy="fentry record --clock tsc",
        )
