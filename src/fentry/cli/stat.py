"""fentry stat: how often functions are called, counted in the target."""

from __future__ import annotations

import contextlib
import math
import select
import shutil
import sys
import time
from typing import NamedTuple

import click

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
from fentry.cli.counting import FunctionLabels, chosen_counts, count_rows
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
from fentry.cli.outlet import Outlet, stdout_fd
from fentry.cli.terminal import is_terminal
from fentry.cli.views import Intervals, Top, View
from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.seen import LOOK_S
from fentry.errors import BadInput, FentryError
from fentry.formats.table import count_json, count_table
from fentry.session import Options, Session

_LOOK_S = 0.1
_INTERVAL = "1s"


@click.command(context_settings=OURS_BEFORE_COMMAND)
@pid_option
@filter_option
@notrace_option
@thread_options
@duration_option
@click.option("--interval", metavar="TIME", help="Print the calls of each interval (500ms, 1s).")
@click.option("--top", is_flag=True, help="A screen of the functions called most; q ends it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array; one line an interval.")
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
    interval: str | None,
    top: bool,
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
    if top and (as_json or show_all):
        raise BadInput("--top is a screen: no --json and no --all", remedy="--interval 1s --json")
    interval_s = parse_seconds(interval or _INTERVAL) if interval or top else 0.0
    shown = _Shown(interval_s, top and is_terminal(), as_json, show_all)
    options = Options(max_stop_s=parse_seconds(max_stop), dispatch=dispatch, follow_forks=follow)
    threads = thread_filter(pid, tids, not_tids, thread_names, follow)
    ops = Ops(Callback.COUNT, patterns(wanted), patterns(unwanted), threads=threads)
    seconds = parse_seconds(duration) if duration is not None else None
    announce_attaching(pid, command)
    with interruptible() as interruption:
        with Attached(pid, command, options) as attached:
            attached.session.register(ops)
            announce_missing(attached.session, ops)
            announce(attached, ops, "counting")
            outlet = Outlet(stdout_fd(), lambda: interruption.count) if interval_s else None
            why, problem = _count(attached, ops, seconds, interruption, outlet, shown)
        if outlet is None or not outlet.is_gone():
            click.echo(_final_line(attached.session, ops, why), err=True)
            if problem is not None:
                click.echo(f"fentry: {problem}", err=True)
        code = attached.exit_code(interruption)
    if outlet is not None and outlet.problem is not None:
        raise outlet.problem  # of a reader that is gone: what ends every command quietly
    sys.exit(problem.exit_code if problem is not None else code)


class _Shown(NamedTuple):
    # What is shown: each interval if it is not 0, on a screen if `top`.
    interval_s: float
    top: bool
    as_json: bool
    show_all: bool


def _count(
    attached: Attached,
    ops: Ops,
    seconds: float | None,
    interruption: Interruption,
    outlet: Outlet | None,
    shown: _Shown,
) -> tuple[str, FentryError | None]:
    # Why the counting ended, and what went wrong when the target was restored.
    session = attached.session
    attached.let_go()
    until = time.monotonic() + seconds if seconds is not None else math.inf
    look_s = LOOK_S if ops.threads or session.followed is not None else _LOOK_S
    with _view(session, ops, outlet, shown) as view:
        why = _wait(session, look_s, until, interruption, view)
        why += unnamed(tuple(session.unmatched_names(ops)))
        why += unloaded(tuple(session.not_loaded(ops, ever=True)))
        problem = _detach(session)
    if shown.interval_s and not shown.top:
        view.finish()
    else:
        _print_counts(session, ops, shown)
    return why, problem


def _view(session: Session, ops: Ops, outlet: Outlet | None, shown: _Shown) -> View:
    if outlet is None:
        return View()
    if shown.top:
        return Top(session, ops, outlet, stdout_fd(), shown.interval_s)
    return Intervals(
        session, ops, outlet, shown.interval_s, as_json=shown.as_json, show_all=shown.show_all
    )


def _wait(
    session: Session,
    look_s: float,
    until: float,
    interruption: Interruption,
    view: View,
) -> str:
    # Why the counting ended.
    while not interruption():
        now = time.monotonic()
        if now >= until:
            return "time is up"
        pause_s = min(look_s, until - now, max(view.due_s - now, 0.0))
        waiting = [*session.wakeups, *view.fds, interruption.fileno()]
        if interruption.fileno() in select.select(waiting, [], [], pause_s)[0]:
            interruption.calm()
        session.follow_threads()
        session.follow_forks()
        if why := session.why_over() or view.look(time.monotonic()):
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


def _print_counts(session: Session, ops: Ops, shown: _Shown) -> None:
    ips, calls = chosen_counts(session, ops)
    if not shown.show_all:
        ips, calls = ips[calls > 0], calls[calls > 0]
    rows = count_rows(FunctionLabels(session), ips.tolist(), calls.tolist())
    if shown.as_json:
        click.echo(count_json(rows))
    else:
        width = shutil.get_terminal_size((100, 25)).columns
        click.echo(count_table(rows, width=width), nl=False)


def _final_line(session: Session, ops: Ops, why: str) -> str:
    stops = session.target.stop_durations_ns
    total = int(chosen_counts(session, ops)[1].sum())
    traced = int((ops.members & session.functions.table.traceable).sum())
    return (
        f"{total} calls, 0 dropped; {traced} functions counted, {int(ops.members.sum()) - traced} "
        f"refused; stopped {len(stops)} times, {sum(stops) / 1e6:.1f} ms, "
        f"longest {max(stops, default=0) / 1e6:.1f} ms; {why}"
        f"{children_line(session.followed)}{left_alone(session.foreign)}"
        f"; next: fentry record {next_target(session)} -F GLOB"
    )
