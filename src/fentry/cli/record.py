"""fentry record: trace a process, or a command, into a file."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

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
    thread_filter,
    thread_options,
)
from fentry.cli.several import for_each, named, output_of
from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.permanent import permanent
from fentry.errors import BadInput, FentryError, TraceFileError
from fentry.events.clock import ClockPair
from fentry.formats.tracefile_files import Storage, rotated
from fentry.formats.tracefile_layout import FILE_MAGIC
from fentry.formats.tracefile_writer import refuse_recorded
from fentry.recording import Recording, Summary
from fentry.ring.clock import check_clock, sample
from fentry.ring.layout import MODE_DISCARD, MODE_OVERWRITE
from fentry.session import Options


@click.command(context_settings=OURS_BEFORE_COMMAND)
@click.option("-p", "--pid", "pids", type=int, multiple=True, help="A process; may be given again.")
@click.option("-n", "--name", metavar="GLOB", help="All processes that run a program of this name.")
@filter_option
@notrace_option
@thread_options
@duration_option
@click.option("-o", "--output", default="trace.fentry", show_default=True, help="Trace file.")
@buffer_option
@click.option("--overwrite", is_flag=True, help="A full ring forgets its oldest records.")
@clock_option
@no_parent_option
@click.option("--compress", is_flag=True, help="Store records compressed.")
@click.option("--max-size", metavar="SIZE", help="End when the file is as large (64M, 2G).")
@click.option(
    "--rotate",
    metavar="SIZE[,COUNT]",
    help="Go on in a next file when it is as large: FILE becomes FILE.1; at most COUNT files.",
)
@click.option("--adopt", "adopting", is_flag=True, help="Go on with what a dead fentry left.")
@max_stop_option
@dispatch_option
@command_argument
def record(
    pids: tuple[int, ...],
    name: str | None,
    wanted: tuple[str, ...],
    unwanted: tuple[str, ...],
    tids: tuple[str, ...],
    not_tids: tuple[str, ...],
    thread_names: tuple[str, ...],
    follow: bool,
    duration: str | None,
    output: str,
    buffer: str,
    overwrite: bool,
    clock: str,
    no_parent: bool,
    compress: bool,
    max_size: str | None,
    rotate: str | None,
    adopting: bool,
    max_stop: str,
    dispatch: str,
    command: tuple[str, ...],
) -> None:
    """Trace functions of a live process (-p PID) or of a command (-- CMD ...).

    Ends with Ctrl-C, after -d TIME, or with the process; the process is then as it was before.
    A command is traced from before its constructors, and its exit code is passed on. Several
    processes are recorded at the same time, each into a file of its own: trace.PID.fentry.
    """
    chosen = tuple(dict.fromkeys((*pids, *(named(name) if name is not None else ()))))
    check_choice(chosen[0] if chosen else None, command, "record")
    if adopting:
        _check_adopting(chosen)
    options = Options(
        buffer_bytes=parse_bytes(buffer),
        mode=MODE_OVERWRITE if overwrite else MODE_DISCARD,
        record_bytes=16 if no_parent else 24,
        max_stop_s=parse_seconds(max_stop),
        dispatch=dispatch,
        follow_forks=follow,
        clock=clock,
    )
    storage = storage_of(compress, max_size, rotate)
    seconds = parse_seconds(duration) if duration is not None else None
    _refuse_tids_of_several(chosen, tids, not_tids)
    threads = thread_filter(chosen[0] if chosen else None, tids, not_tids, thread_names, follow)
    ops = Ops(Callback.RECORD, patterns(wanted), patterns(unwanted), threads=threads)
    if clock == "tsc":
        check_clock()

    def one(pid: int | None, path: str) -> int:
        attach = partial(Attached, pid, command, options, adopting=adopting)
        announce_attaching(pid, command)
        return _record(attach, ops, path, seconds, storage)

    outputs = {pid: output_of(output, pid) for pid in chosen} if len(chosen) > 1 else {0: output}
    for path in outputs.values():
        check_output(path, rotates=storage.rotates)
    if len(chosen) > 1:
        sys.exit(for_each(chosen, lambda pid: one(pid, outputs[pid])))
    sys.exit(one(chosen[0] if chosen else None, output))


def _record(
    attach: Callable[[], Attached],
    ops: Ops,
    output: str,
    seconds: float | None,
    storage: Storage,
) -> int:
    # From the attach to the last line; the exit code.
    clock = [ClockPair(*sample())]
    with interruptible() as interruption:
        with attach() as attached:
            recording, problem = _run(attached, ops, output, clock, seconds, interruption, storage)
        children = children_line(attached.session.followed)
        click.echo(final_line(recording.summary, output, children), err=True)
        if problem is not None:
            click.echo(f"fentry: {problem}", err=True)
        code = attached.exit_code(interruption)
    return problem.exit_code if problem is not None else code


def _refuse_tids_of_several(pids: Sequence[int], tids: Sequence[str], nots: Sequence[str]) -> None:
    if len(pids) > 1 and (tids or nots):
        raise BadInput(
            "--tid and --not-tid are for one process",
            cause=f"{len(pids)} processes were chosen",
            remedy="--thread GLOB",
        )


def _check_adopting(pids: Sequence[int]) -> None:
    if len(pids) != 1:
        raise BadInput("--adopt needs one -p PID", remedy="fentry record --adopt -p PID")
    context = click.get_current_context()
    functions, ring = ("wanted", "unwanted"), ("buffer", "overwrite", "clock", "no_parent")
    fixed = (*functions, "tids", "not_tids", "thread_names", "follow", *ring)
    default = click.core.ParameterSource.DEFAULT
    if any(context.get_parameter_source(name) is not default for name in fixed):
        raise BadInput(
            "--adopt goes on with the functions, the threads and the ring that are there",
            cause="-F, -N, --tid, --not-tid, --thread, -f, -m, --overwrite, --clock and "
            "--no-parent cannot be changed",
            remedy=f"fentry record --adopt -p {pids[0]}",
        )


def _run(
    attached: Attached,
    ops: Ops,
    output: str,
    clock: list[ClockPair],
    seconds: float | None,
    interruption: Interruption,
    storage: Storage,
) -> tuple[Recording, FentryError | None]:
    # The recording when it is over and the target restored, and what went wrong in its middle.
    session = attached.session
    adopted = [one for one in session.ops.values() if one.callback is Callback.RECORD]
    if session.ops and not adopted:
        goes_on = (
            "its PERMANENT ops go on" if permanent(session.ops.values()) else "it is detached now"
        )
        raise BadInput(
            f"there is no recording of process {session.pid} to go on with",
            cause=f"what was left only counted; {goes_on}",
            remedy=f"fentry record -p {session.pid} -F GLOB",
        )
    ops = adopted[0] if adopted else session.register(ops)
    announce_missing(session, ops)
    recording = Recording(session, ops, output, clock, storage)
    try:
        with recording:
            announce(attached, ops, "recording")
            announce_locks(session)
            attached.let_go()
            until = time.monotonic() + seconds if seconds is not None else None
            recording.run(until, interruption, interruption.fileno())
    except FentryError as error:
        return recording, error
    return recording, None


def storage_of(compress: bool, max_size: str | None, rotate: str | None) -> Storage:
    """What the options of these names ask for. Raises BadInput."""
    if max_size is not None and rotate is not None:
        raise BadInput(
            "--max-size and --rotate exclude each other",
            cause="at its size a file either ends the recording or is followed by the next",
        )
    if rotate is None:
        return Storage(compress, parse_bytes(max_size) if max_size is not None else 0)
    size, comma, count = rotate.partition(",")
    if comma and not (count.strip().isascii() and count.strip().isdigit() and int(count)):
        raise BadInput(f"{count!r} is no number of files", remedy="--rotate 1G,10")
    return Storage(compress, parse_bytes(size), True, int(count) if comma else 0)


def check_output(path: str, *, rotates: bool = False) -> None:
    """Refuse, before anything is touched, a file that cannot be written, or with `rotates` not be
    renamed. Raises TraceFileError."""
    folder = os.path.dirname(path) or "."
    exists = os.path.exists(path)
    kind = os.stat(path).st_mode if exists else 0
    cause = ""
    if path == "-":
        cause = "a trace is no text, and is not complete before its end"
    elif stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
        cause = "it is a pipe or socket, and would make the process wait for its reader"
    elif os.path.isdir(path):
        cause = "it is a folder"
    elif not os.path.isdir(folder):
        cause = f"the folder {folder} does not exist"
    elif not os.access(path if exists else folder, os.W_OK):
        cause = "no permission to write there"
    elif os.path.isfile(path) and not _may_be_replaced(path):
        cause = "it exists and is not a fentry trace"
    elif rotates and exists and not stat.S_ISREG(kind):
        cause = "it is no regular file, and cannot be rotated"
    elif rotates and not os.access(folder, os.W_OK):
        cause = f"no permission to make files in the folder {folder}"
    if cause:
        raise TraceFileError(f"cannot write {path}", cause=cause, remedy="another file with -o")
    if stat.S_ISREG(kind):
        refuse_recorded(path)
    if rotates:
        rotated(Path(path).resolve())


def _may_be_replaced(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(FILE_MAGIC)) in (b"", FILE_MAGIC)
    except OSError:
        return False  # what it is cannot be seen


def final_line(summary: Summary, path: str, children: str = "") -> str:
    """The one line a recording ends with: events, drops, time stopped, next command."""
    what = totals(summary, children, _files(summary, path))
    return f"{what}; next: fentry report -i {path}"


def _files(summary: Summary, path: str) -> str:
    # What to say of rotated files, "" if there is one file.
    if summary.files == 1:
        return ""
    text = f"; {summary.files} files"
    if summary.removed_files:
        text += f", of them {summary.removed_files} removed with {summary.removed_events} events"
    older = summary.files - summary.removed_files - 1
    return text + (f", {path}.1 to .{older} are older" if older > 1 else f", {path}.1 is older")
