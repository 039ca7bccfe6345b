"""fentry stat: how often functions are called, counted in the target."""

from __future__ import annotations

import select
import shutil
import sys
import time

import click
import numpy as np

from fentry.cli.options import (
    Interruption,
    duration_option,
    filter_option,
    interruptible,
    max_stop_option,
    notrace_option,
    parse_seconds,
    pid_option,
)
from fentry.dispatch.ops import Callback, Ops
from fentry.errors import BadInput
from fentry.formats.table import FunctionCount, count_json, count_table
from fentry.recording import patterns
from fentry.session import Options, Session, attach, run


@click.command()
@pid_option
@filter_option
@notrace_option
@duration_option
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.option("--all", "show_all", is_flag=True, help="Functions that were not called, too.")
@max_stop_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def stat(
    pid: int | None,
    wanted: tuple[str, ...],
    unwanted: tuple[str, ...],
    duration: str | None,
    as_json: bool,
    show_all: bool,
    max_stop: str,
    command: tuple[str, ...],
) -> None:
    """Count the calls of functions of a process (-p PID) or of a command (-- CMD ...)."""
    if (pid is None) == (not command):
        raise BadInput("say what to count: either -p PID or -- COMMAND", remedy="fentry stat -h")
    options = Options(max_stop_s=parse_seconds(max_stop))
    ops = Ops(Callback.COUNT, patterns(wanted), patterns(unwanted))
    seconds = parse_seconds(duration) if duration is not None else None
    with interruptible() as interruption:
        session = run(command, options) if command else attach(pid or 0, options)
        try:
            session.register(ops)
            if command:
                session.release()
            until = time.monotonic() + seconds if seconds is not None else None
            _wait(session, until, interruption)
        finally:
            session.detach()
        _show(session, ops, as_json, show_all)
    session.target.close()
    sys.exit(session.exit_code() if command else 0)


def _wait(session: Session, until: float | None, interruption: Interruption) -> None:
    watched = [session.pidfd, interruption.fileno()]
    while not interruption():
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return
        pause_s = 0.1 if left is None else min(left, 0.1)
        if select.select(watched, [], [], pause_s)[0] or session.was_detached():
            return


def _show(session: Session, ops: Ops, as_json: bool, show_all: bool) -> None:
    ips, calls = session.counts(ops)
    chosen = np.isin(ips, session.functions.table.ip[ops.members])
    total = int(calls[chosen].sum())
    shown = chosen if show_all else chosen & (calls > 0)
    rows = []
    for ip, count in zip(ips[shown].tolist(), calls[shown].tolist(), strict=True):
        name, _, module = session.functions.symbols.resolve(ip)
        rows.append(
            FunctionCount(count, count / max(total, 1), name, module.name if module else "")
        )
    rows.sort(key=lambda row: (-row.calls, row.function, row.module))
    if as_json:
        click.echo(count_json(rows))
    else:
        click.echo(count_table(rows, width=shutil.get_terminal_size((100, 25)).columns), nl=False)
    stops = session.target.stop_durations_ns
    traced = int((ops.members & session.functions.table.traceable).sum())
    click.echo(
        f"{total} calls, {traced} functions counted, {int(ops.members.sum()) - traced} refused; "
        f"{len(stops)} stops, {sum(stops) / 1e6:.1f} ms",
        err=True,
    )
