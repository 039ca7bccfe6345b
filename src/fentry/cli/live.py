"""fentry live: the calls of a process, or of a command, printed as they happen.

When the reader of the output goes away (`| head`) the process is restored and live ends quietly
with exit status 141, which is 128 + SIGPIPE.
"""

from __future__ import annotations

import sys
import time

import click

from fentry.cli.attached import (
    Attached,
    Interruption,
    announce,
    announce_attaching,
    announce_locks,
    announce_missing,
    check_choice,
    interruptible,
    next_target,
    totals,
)
from fentry.cli.options import (
    OURS_BEFORE_COMMAND,
    buffer_option,
    children_line,
    clock_option,
    command_argument,
    dispatch_option,
    duration_option,
    filter_option,
    max_stop_option,
    no_parent_option,
    notrace_option,
    parse_bytes,
    parse_seconds,
    patterns,
    pid_option,
    thread_filter,
    thread_options,
)
from fentry.cli.outlet import Outlet, stdout_fd
from fentry.dispatch.ops import Callback, Ops
from fentry.errors import FentryError
from fentry.events.clock import ClockPair
from fentry.live.printing import Live
from fentry.ring.clock import check_clock, sample
from fentry.session import Options


@click.command(context_settings=OURS_BEFORE_COMMAND)
@pid_option
@filter_option
@notrace_option
@thread_options
@duration_option
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
@buffer_option
@clock_option
@no_parent_option
@max_stop_option
@dispatch_option
@command_argument
def live(
    pid: int | None,
    wanted: tuple[str, ...],
    unwanted: tuple[str, ...],
    tids: tuple[str, ...],
    not_tids: tuple[str, ...],
    thread_names: tuple[str, ...],
    follow: bool,
    duration: str | None,
    as_json: bool,
    buffer: str,
    clock: str,
    no_parent: bool,
    max_stop: str,
    dispatch: str,
    command: tuple[str, ...],
) -> None:
    """Print the calls of a live process (-p PID) or of a command (-- CMD ...) as they happen.

    Ends with Ctrl-C, after -d TIME, or with the process; the process is then as it was before.
    It never waits for whoever reads: calls that find the ring full are counted as lost.
    """
    check_choice(pid, command, "live")
    options = Options(
        buffer_bytes=parse_bytes(buffer),
        record_bytes=16 if no_parent else 24,
        max_stop_s=parse_seconds(max_stop),
        dispatch=dispatch,
        follow_forks=follow,
        clock=clock,
    )
    seconds = parse_seconds(duration) if duration is not None else None
    threads = thread_filter(pid, tids, not_tids, thread_names, follow)
    ops = Ops(Callback.RECORD, patterns(wanted), patterns(unwanted), threads=threads)
    pairs = []
    if clock == "tsc":
        check_clock()
        pairs.append(ClockPair(*sample()))
    fd = stdout_fd()
    announce_attaching(pid, command)
    with interruptible() as interruption:
        with Attached(pid, command, options) as attached:
            attached.session.register(ops)
            announce_missing(attached.session, ops)
            outlet = Outlet(fd, lambda: interruption.count)
            printing = Live(attached.session, ops, outlet, as_json=as_json, clock=pairs)
            problem = _print(attached, printing, ops, seconds, outlet, interruption)
        if not outlet.is_gone():
            click.echo(_final_line(printing), err=True)
            if problem is not None:
                click.echo(f"fentry: {problem}", err=True)
        code = attached.exit_code(interruption)
    if outlet.problem is not None:
        raise outlet.problem  # of a reader that is gone: what ends every command quietly
    sys.exit(problem.exit_code if problem is not None else code)


def _print(
    attached: Attached,
    printing: Live,
    ops: Ops,
    seconds: float | None,
    outlet: Outlet,
    interruption: Interruption,
) -> FentryError | None:
    # What went wrong in the middle, when it is over and the target restored.
    def why() -> str:
        return interruption() or ("the reader is gone" if outlet.is_gone() else "")

    try:
        with printing:
            announce(attached, ops, "printing calls of")
            announce_locks(printing.session)
            attached.let_go()
            until = time.monotonic() + seconds if seconds is not None else None
            printing.run(until, why, interruption.fileno())
    except FentryError as error:
        return error
    return None


def _final_line(printing: Live) -> str:
    session = printing.session
    late = f"; {printing.late} out of order" if printing.late else ""
    return (
        f"{totals(printing.summary, children_line(session.followed))}{late}"
        f"; next: fentry record {next_target(session)} -F GLOB"
    )
