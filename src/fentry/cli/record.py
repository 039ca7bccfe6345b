"""fentry record: trace a process, or a command, into a file."""

from __future__ import annotations

import os
import sys
import time

import click

from fentry.cli.options import (
    duration_option,
    filter_option,
    interruptible,
    max_stop_option,
    notrace_option,
    parse_bytes,
    parse_seconds,
    pid_option,
)
from fentry.dispatch.ops import Callback, Ops
from fentry.errors import BadInput
from fentry.recording import Recording, final_line, patterns
from fentry.ring.clock import check_clock
from fentry.ring.layout import MODE_DISCARD, MODE_OVERWRITE
from fentry.session import Options, Session, adopt, attach, run


@click.command(context_settings={"ignore_unknown_options": False})
@pid_option
@filter_option
@notrace_option
@duration_option
@click.option("-o", "--output", default="trace.fentry", show_default=True, help="Trace file.")
@click.option("-m", "--buffer", default="4M", show_default=True, help="Ring bytes for each CPU.")
@click.option("--overwrite", is_flag=True, help="A full ring forgets its oldest records.")
@click.option("--no-parent", is_flag=True, help="Records of 16 bytes, without the caller.")
@click.option("--adopt", "adopting", is_flag=True, help="Go on with what a dead fentry left.")
@max_stop_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def record(
    pid: int | None,
    wanted: tuple[str, ...],
    unwanted: tuple[str, ...],
    duration: str | None,
    output: str,
    buffer: str,
    overwrite: bool,
    no_parent: bool,
    adopting: bool,
    max_stop: str,
    command: tuple[str, ...],
) -> None:
    """Trace functions of a live process (-p PID) or of a command (-- CMD ...).

    Ends with Ctrl-C, after -d TIME, or with the process; the process is then as it was before.
    """
    if (pid is None) == (not command):
        raise BadInput("say what to trace: either -p PID or -- COMMAND", remedy="fentry record -h")
    options = Options(
        buffer_bytes=parse_bytes(buffer),
        mode=MODE_OVERWRITE if overwrite else MODE_DISCARD,
        record_bytes=16 if no_parent else 24,
        max_stop_s=parse_seconds(max_stop),
    )
    seconds = parse_seconds(duration) if duration is not None else None
    check_clock()
    check_output(output)
    ops = Ops(Callback.RECORD, patterns(wanted), patterns(unwanted))
    with interruptible() as interruption:
        if adopting:
            if pid is None:
                raise BadInput("--adopt needs -p PID")
            session = adopt(pid, options)
            ops = next((o for o in session.ops.values() if o.callback is Callback.RECORD), ops)
        else:
            session = run(command, options) if command else attach(_given(pid), options)
        try:
            if not adopting:
                session.register(ops)
            recording = Recording(session, ops, output, options)
        except BaseException:
            session.close()
            _end_command(session, bool(command))
            raise
        with recording:
            if command:
                session.release()
            until = time.monotonic() + seconds if seconds is not None else None
            recording.run(until, interruption, interruption.fileno())
    session.target.close()
    click.echo(final_line(recording.summary, output), err=True)
    sys.exit(session.exit_code() if command else 0)


def check_output(path: str) -> None:
    """Refuse, before anything is touched, a file that cannot be written. Raises BadInput."""
    folder = os.path.dirname(path) or "."
    where = path if os.path.exists(path) else folder
    if os.path.isdir(path) or not os.access(where, os.W_OK):
        raise BadInput(
            f"cannot write {path}",
            cause="no such folder, or no permission to write there",
            remedy="another file with -o",
        )


def _given(pid: int | None) -> int:
    assert pid is not None
    return pid


def _end_command(session: Session, started: bool) -> None:
    if started:
        os.kill(session.pid, 9)
        os.waitpid(session.pid, 0)
