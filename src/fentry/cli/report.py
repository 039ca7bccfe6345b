"""fentry report: a trace file as text, JSON lines or a table of counts, or two of them compared.

Text goes to stdout, what there is to say about the trace to stderr: damage in two lines, then
one line of totals.  When the reader of stdout goes away (`| head`) report stops quietly with
exit status 141, which is 128 + SIGPIPE: what a shell shows for any command that ends so.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO, Protocol

import click

from fentry.cli.selection import Selection, selection_options
from fentry.cli.traces import Trace, inputs_option, opened
from fentry.errors import BadInput, FentryError
from fentry.events.columns import Events
from fentry.formats import text
from fentry.formats.column_text import COLUMNS, ColumnText
from fentry.formats.diff import Side, builds_of, diff_json, diff_table, difference
from fentry.formats.symbol_names import SymbolNames, printable
from fentry.formats.table import FunctionCounts, count_json, count_table
from fentry.formats.task_names import TaskNames
from fentry.formats.tracefile_payloads import Json

EXIT_BROKEN_PIPE = 141

_MOST_CHILDREN = 8
_ENDINGS = {
    "exec": "is not followed any more: it executed",
    "lost": "cannot be looked at any more:",
}


class _Lines(Protocol):
    def lines(self, events: Events) -> memoryview: ...


_EPILOG = """
Exit status: 0, 10 when nothing of the file can be read, 141 when the reader of the output went
away. A damaged or unfinished file is shown as far as it is whole, with status 0.
"""


@click.command(epilog=_EPILOG)
@inputs_option
@click.option("--core", metavar="FILE", help="The core file of a process that was armed.")
@click.option("--rotated", is_flag=True, help="Also the files that were rotated: FILE.1, ...")
@click.option("--json", "as_json", is_flag=True, help="JSON lines; with --counts one JSON array.")
@click.option("--counts", is_flag=True, help="Calls of each function instead of every call.")
@click.option(
    "--columns", metavar="NAME,...", help=f"Text in columns of your choice: {', '.join(COLUMNS)}."
)
@click.option(
    "--diff", "other", metavar="TRACE", help="Calls of each function before, and after in TRACE."
)
@selection_options
def report(
    paths: tuple[str, ...],
    core: str | None,
    rotated: bool,
    as_json: bool,
    counts: bool,
    columns: str | None,
    other: str | None,
    **chosen: Any,
) -> None:
    """Show a recorded trace.

    Globs match function names; MODULE!NAME narrows to a module.
    """
    try:
        if columns is not None and (as_json or counts or other is not None):
            raise BadInput("--columns is for the text of events, not --json, --counts or --diff")
        if other is not None:
            _write_difference(paths, other, chosen, as_json=as_json)
            return
        with opened(paths, rotated=rotated, core=core) as trace:
            symbols = SymbolNames.of_trace(trace)
            tasks = TaskNames(trace.tasks)
            selection = Selection(trace, symbols, tasks, **chosen)
            out = _stdout()
            if counts:
                _write_counts(selection, symbols, out, as_json=as_json)
            else:
                head, form = _form(trace, symbols, tasks, columns, as_json=as_json)
                _write_lines(selection, head, form, out)
            out.flush()
            _report_damage(trace)
            _report_totals(trace, selection.shown)
    except BrokenPipeError:
        _silence_stdout()
        raise SystemExit(EXIT_BROKEN_PIPE) from None
    except FentryError as error:
        click.echo(f"fentry: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        _silence_stdout()
        cause = os.strerror(error.errno or 0).lower()
        click.echo(f"fentry: cannot write the report\n  cause: {cause}", err=True)
        raise SystemExit(1) from None


def _stdout() -> BinaryIO:
    if sys.stdout is None:
        raise FentryError("cannot write the report", cause="standard output is closed")
    return sys.stdout.buffer


def _form(
    trace: Trace,
    symbols: SymbolNames,
    tasks: TaskNames,
    columns: str | None,
    *,
    as_json: bool,
) -> tuple[bytes, _Lines]:
    # what stands above the events, and what makes lines of them
    if as_json:
        return b"", text.JsonLines(symbols, tasks, has_time=trace.has_time)
    if columns is not None:
        names = [name.strip() for name in columns.split(",") if name.strip()]
        has_parents = trace.meta.record_bytes == 24
        form = ColumnText(names, symbols, tasks, has_time=trace.has_time, has_parents=has_parents)
        return form.head(), form
    written = trace.records + sum(cpu.overrun for cpu in trace.losses)
    head = text.function_header(
        entries=trace.records, written=written, nr_cpus=trace.meta.nr_cpus, clock=trace.meta.clock
    )
    return head, text.FunctionText(symbols, tasks, has_time=trace.has_time)


def _write_lines(selection: Selection, head: bytes, form: _Lines, out: BinaryIO) -> None:
    out.write(head)
    for events in selection.merged():
        for start in range(0, len(events), text.LINES_AT_ONCE):
            out.write(form.lines(events.take(slice(start, start + text.LINES_AT_ONCE))))


def _write_counts(
    selection: Selection, symbols: SymbolNames, out: BinaryIO, *, as_json: bool
) -> None:
    table = FunctionCounts(symbols)
    for events in selection.batches():
        table.add(events)
    if as_json:
        out.write(count_json(table.rows()).encode())
    else:
        out.write(count_table(table.rows(), width=_width()).encode())


def _write_difference(
    paths: tuple[str, ...], other: str, chosen: dict[str, Any], *, as_json: bool
) -> None:
    if other == "-" in paths:
        raise BadInput("both traces are standard input", remedy="a file for one of them")
    with opened(paths) as before, opened((other,)) as after:
        traces = before, after
        names = [SymbolNames.of_trace(trace) for trace in traces]
        selections = [
            Selection(
                trace, own, TaskNames(trace.tasks), elsewhere=others, whole_span=True, **chosen
            )
            for trace, own, others in zip(traces, names, reversed(names), strict=True)
        ]
        out = _stdout()
        sides = [_side(*one) for one in zip(traces, names, selections, strict=True)]
        found = difference(*sides)
        if as_json:
            out.write(diff_json(found.rows).encode())
        else:
            out.write(diff_table(found.rows, width=_width()).encode())
        out.flush()
        for rebuilt in found.rebuilt:
            click.echo(f"{rebuilt} is another build: functions are matched by name", err=True)
        for trace, selection in zip(traces, selections, strict=True):
            _report_damage(trace)
            click.echo(f"{_printed(str(trace.path))}: ", nl=False, err=True)
            _report_totals(trace, selection.shown)


def _side(trace: Trace, symbols: SymbolNames, selection: Selection) -> Side:
    table = FunctionCounts(symbols)
    for events in selection.batches():
        table.add(events)
    return Side(table.rows(), builds_of(trace.modules), selection.seconds)


def _width() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def _report_damage(trace: Trace) -> None:
    if not trace.damage:
        return
    first = trace.damage[0]
    more = f" (and {len(trace.damage) - 1} more)" if len(trace.damage) > 1 else ""
    what = "is not complete" if _only_unfinished(trace) else "is damaged"
    click.echo(f"fentry: {trace.path} {what}: what is whole was read", err=True)
    click.echo(f"  cause: at byte {first.offset}: {first.what}{more}", err=True)


def _report_totals(trace: Trace, shown: int) -> None:
    losses = trace.losses
    parts = [f"{shown} of {trace.records} events (clock {_printed(trace.meta.clock)})"]
    parts.append(f"{sum(cpu.dropped_events for cpu in losses)} dropped")
    for count, word in (
        (sum(cpu.overrun for cpu in losses), "overrun"),
        (sum(cpu.incomplete for cpu in losses), "incomplete"),
        (trace.torn, "torn"),
        (trace.late, "out of order"),
    ):
        if count:
            parts.append(f"{count} {word}")
    parts.append(_damage_in_short(trace))
    click.echo(", ".join(parts), err=True)
    if not trace.has_time:
        click.echo(
            "records are counted on each CPU: order within each CPU only, no times", err=True
        )
    stray = trace.meta.stray_cpu
    if any(cpu.cpu == stray and cpu.recorded for cpu in losses):
        order = "" if trace.has_time else ", in their own order"
        click.echo(f"under CPU {stray} stand calls whose CPU is not known{order}", err=True)
    for event in trace.events:
        if event.get("kind") == "modules":
            click.echo(_gap_of(event), err=True)
        if event.get("kind") == "full":
            unwritten = _printed(str(event.get("unwritten_records")))
            click.echo(f"{unwritten} more were recorded than --max-size has room for", err=True)
    for line in _children_of(trace.events):
        click.echo(line, err=True)


def _children_of(events: Sequence[dict[str, Json]]) -> list[str]:
    # Forked children that were seen, and what a child ran that is not in the trace any more.
    def told(kind: str) -> list[tuple[str, str]]:
        found = [event for event in events if event.get("kind") == kind]
        return [(_printed(str(e.get("pid"))), _printed(str(e.get("name")))) for e in found]

    lines = []
    if forked := told("fork"):
        shown = ", ".join(f"{name}-{pid}" for pid, name in forked[:_MOST_CHILDREN])
        more = f" and {len(forked) - _MOST_CHILDREN} more" if len(forked) > _MOST_CHILDREN else ""
        lines.append(f"forked children seen: {shown}{more}")
    for kind, what in _ENDINGS.items():
        ended = told(kind)
        lines += [f"child {pid} {what} {name}" for pid, name in ended[:_MOST_CHILDREN]]
        if len(ended) > _MOST_CHILDREN:
            lines.append(f"{len(ended) - _MOST_CHILDREN} more like this")
    return lines


def _gap_of(event: dict[str, Json]) -> str:
    # What of a library that was loaded later may be missing.
    loaded, functions = event.get("loaded"), event.get("functions")
    times = event.get("time_ns"), event.get("not_before_ns")
    numbers = [value for value in times if isinstance(value, int)]
    names = [os.path.basename(str(path)) for path in loaded] if isinstance(loaded, list) else []
    shown = _printed(", ".join(names))
    late = ""
    if len(numbers) == 2:
        late = f" up to {(numbers[0] - numbers[1]) // 1_000_000} ms after it"
    return f"{shown} loaded meanwhile: {_printed(str(functions))} functions traced from{late}"


def _printed(text: str) -> str:
    return printable(text.encode("utf-8", "replace")).decode()


def _only_unfinished(trace: Trace) -> bool:
    return not trace.complete and len(trace.damage) == 1


def _damage_in_short(trace: Trace) -> str:
    places = len(trace.damage)
    if _only_unfinished(trace):
        return "no END"
    return f"damaged in {places} place{'s' * (places > 1)}" if places else "no damage"


def _silence_stdout() -> None:
    # the interpreter flushes stdout once more when it ends, and would complain
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
