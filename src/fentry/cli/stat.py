"""fentry stat: how often functions are called, counted in the target."""

from __future__ import annotations

import contextlib
import select
import shutil
import sys
import time
from collections import Counter

import click
import numpy as np

from fentry.cli.attached import (
    Attached,
    Interruption,
    announce,
    announce_attaching,
    announce_missing,
    check_choice,
    interruptible,
    next_target,
)
from fentry.cli.options import (
    OURS_BEFORE_COMMAND,
    children_line,
    command_argument,
    dispatch_option,
    duration_option,
    filter_option,
    left_alone,
    max_stop_option,
    notrace_option,
    parse_seconds,
    patterns,
    pid_option,
    thread_filter,
    thread_options,
    unloaded,
    unnamed,
)
from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.seen import LOOK_S
from fentry.errors import FentryError
from fentry.formats.table import FunctionCount, count_json, count_table
from fentry.session import Options, Session

_LOOK_S = 0.1


@click.command(context_settings=OURS_BEFORE_COMMAND)
@pid_option
@filter_option
@notrace_option
@thread_options
@duration_option
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.option("--all", "show_all", is_flag=True, help="Functions that were not called, too.")
@max_stop_option
@dispatch_option
@command_argument
def stat(
    pid: int | None,
    wanted: tuple[str, ...],
    unwanted: tuple[str, ...],
    tids: tuple[str, ...],
    not_tids: tuple[str, ...],
    thread_names: tuple[str, ...],
    follow: bool,
    duration: str | None,
    as_json: bool,
    show_all: bool,
    max_stop: str,
    dispatch: str,
    command: tuple[str, ...],
) -> None:
    """Count the calls of functions of a process (-p PID) or of a command (-- CMD ...).

    Ends with Ctrl-C, after -d TIME, or with the process, and then prints the counts.
    """
    check_choice(pid, command, "stat")
    options = Options(max_stop_s=parse_seconds(max_stop), dispatch=dispatch, follow_forks=follow)
    threads = thread_filter(pid, tids, not_tids, thread_names, follow)
    ops = Ops(Callback.COUNT, patterns(wanted), patterns(unwanted), threads=threads)
    seconds = parse_seconds(duration) if duration is not None else None
    announce_attaching(pid, command)
    with interruptible() as interruption:
        with Attached(pid, command, options) as attached:
            session = attached.session
            session.register(ops)
            announce_missing(session, ops)
            announce(attached, ops, "counting")
            attached.let_go()
            until = time.monotonic() + seconds if seconds is not None else None
            why = _wait(session, LOOK_S if threads or follow else _LOOK_S, until, interruption)
            why += unnamed(tuple(session.unmatched_names(ops)))
            why += unloaded(tuple(session.not_loaded(ops, ever=True)))
            problem = _detach(session)
        rows, total = _counted(session, ops, show_all)
        if as_json:
            click.echo(count_json(rows))
        else:
            width = shutil.get_terminal_size((100, 25)).columns
            click.echo(count_table(rows, width=width), nl=False)
        chosen = ops.members
        traced = int((chosen & session.functions.table.traceable).sum())
        click.echo(_final_line(session, total, traced, int(chosen.sum()) - traced, why), err=True)
        if problem is not None:
            click.echo(f"fentry: {problem}", err=True)
        code = attached.exit_code(interruption)
    sys.exit(problem.exit_code if problem is not None else code)


def _wait(session: Session, look_s: float, until: float | None, interruption: Interruption) -> str:
    # Why the counting ended.
    while not interruption():
        left = look_s if until is None else until - time.monotonic()
        if left <= 0:
            return "time is up"
        waiting = [*session.wakeups, interruption.fileno()]
        select.select(waiting, [], [], min(left, look_s))
        session.follow_threads()
        session.follow_forks()
        if why := session.why_over():
            return why
        with contextlib.suppress(FentryError):
            session.follow_modules()  # or the next look tries again, or tells why it is over
    return interruption.reason


def _detach(session: Session) -> FentryError | None:
    # The counters are shared memory: they can be read whatever happens to the target.
    try:
        session.detach()
    except FentryError as error:
        return error
    return None


def _counted(session: Session, ops: Ops, show_all: bool) -> tuple[list[FunctionCount], int]:
    ips, calls = session.counts(ops)
    chosen = np.isin(ips, session.functions.table.ip[ops.members])
    total = int(calls[chosen].sum())
    shown = chosen if show_all else chosen & (calls > 0)
    rows = []
    found = [session.functions.symbols.resolve(ip) for ip in ips[shown].tolist()]
    often = Counter((name, id(module)) for name, _, module in found)
    for ip, count, (name, _, module) in zip(
        ips[shown].tolist(), calls[shown].tolist(), found, strict=True
    ):
        if module is not None and often[name, id(module)] > 1:  # static functions of two files
            name += f" ({module.name}+0x{ip - module.base:x})"
        rows.append(
            FunctionCount(count, count / max(total, 1), name, module.name if module else "")
        )
    rows.sort(key=lambda row: (-row.calls, row.function, row.module))
    return rows, total


def _final_line(session: Session, total: int, traced: int, refused: int, why: str) -> str:
    stops = session.target.stop_durations_ns
    return (
        f"{total} calls, 0 dropped; {traced} functions counted, {refused} refused; "
        f"stopped {len(stops)} times, {sum(stops) / 1e6:.1f} ms, "
        f"longest {max(stops, default=0) / 1e6:.1f} ms; {why}"
        f"{children_line(session.followed)}{left_alone(session.foreign)}"
        f"; next: fentry record {next_target(session)} -F GLOB"
    )
