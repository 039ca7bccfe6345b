"""fentry arm: a flight recorder that needs no controller."""

from __future__ import annotations

import click

from fentry.cli.attached import Attached, announce_attaching
from fentry.cli.options import (
    filter_option,
    max_stop_option,
    notrace_option,
    parse_bytes,
    parse_seconds,
    patterns,
    thread_filter,
)
from fentry.dispatch.ops import Callback, Flags, Ops
from fentry.dispatch.permanent import recorders_of
from fentry.errors import LockError
from fentry.process.guard import guard
from fentry.process.target import Target
from fentry.ring.clock import check_clock, sample
from fentry.ring.layout import MODE_OVERWRITE
from fentry.session import Options


@click.command()
@click.option("-p", "--pid", type=int, required=True, help="The process.")
@filter_option
@notrace_option
@click.option(
    "--tid", "tids", multiple=True, metavar="TID", help="Record these threads only: TID[,TID...]."
)
@click.option("--not-tid", "not_tids", multiple=True, metavar="TID", help="Threads not to record.")
@click.option("-m", "--buffer", default="8M", show_default=True, help="Ring bytes for each CPU.")
@click.option("--no-parent", is_flag=True, help="Records of 16 bytes, without the caller.")
@max_stop_option
def arm(
    pid: int,
    wanted: tuple[str, ...],
    unwanted: tuple[str, ...],
    tids: tuple[str, ...],
    not_tids: tuple[str, ...],
    buffer: str,
    no_parent: bool,
    max_stop: str,
) -> None:
    """Let a process record its last calls by itself, and return.

    No process of ours stays behind. `fentry dump` writes what was called last, as often as you
    like; after a crash the core file has it (`fentry report --core`). Until `fentry dump --disarm`,
    or `fentry detach --force`.
    """
    options = Options(
        buffer_bytes=parse_bytes(buffer),
        mode=MODE_OVERWRITE,
        record_bytes=16 if no_parent else 24,
        max_stop_s=parse_seconds(max_stop),
    )
    threads = thread_filter(pid, tids, not_tids, (), False)
    ops = Ops(
        Callback.RECORD, patterns(wanted), patterns(unwanted), Flags.PERMANENT, threads=threads
    )
    check_clock()
    guard().start()
    began = sample()
    _refuse_armed(pid)
    announce_attaching(pid, ())
    with Attached(pid, (), options) as attached:
        session = attached.session
        session.register(ops)
        try:
            session.top.keep_clock([began, sample()])
        except BaseException:
            session.unregister(ops)
            raise
        traced = int((ops.members & session.functions.table.traceable).sum())
    stops = session.target.stop_durations_ns
    click.echo(
        f"{pid} is armed: {traced} functions recorded, {int(ops.members.sum()) - traced} refused"
        f"; the last {session.ring.capacity} calls of each CPU"
        f"; stopped {len(stops)} times, {sum(stops) / 1e6:.1f} ms"
        f", longest {max(stops, default=0) / 1e6:.1f} ms; next: fentry dump -p {pid}",
        err=True,
    )


def _refuse_armed(pid: int) -> None:
    target = Target(pid)
    try:
        found = recorders_of(target)
    finally:
        target.close()
    if found:
        raise LockError(
            f"process {pid} is armed already",
            cause=f"it records {found[0]}",
            remedy=f"fentry dump -p {pid} --disarm",
        )
