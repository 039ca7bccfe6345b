"""fentry detach: put a process back as it was, whoever attached to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

import click

from fentry.cli.options import left_alone
from fentry.dispatch.detach import Undone, undo
from fentry.dispatch.followed import Ended, end_bearers
from fentry.dispatch.permanent import refuse_permanent_in
from fentry.errors import AttachError, FentryError, PatchError, RegionError, TargetGone
from fentry.process.guard import guard
from fentry.process.maps import read_maps
from fentry.process.target import Target
from fentry.region.inherited import identity_of_maker
from fentry.region.region import Region


@click.command()
@click.option("-p", "--pid", type=int, required=True, help="The process.")
@click.option("--force", is_flag=True, help="Also PERMANENT ops whose owner is gone.")
def detach(pid: int, force: bool) -> None:
    """Restore the text of a process and unmap what fentry left in it.

    Forked children that inherited the tracing (followed, or silent) are restored as well.
    """
    guard().start()
    identity = identity_of_maker(pid)
    ended: list[Ended] = []

    def end_children() -> None:
        if identity is not None:
            ended.extend(end_bearers(identity))

    with closing(Target(pid)) as target:
        refuse_permanent_in(target, force=force)
        try:
            if identity is not None:
                silence(target)
            target.sweep()
            done = undo(target, from_living=True, force=force, between=end_children)
            click.echo(line_of(pid, done))
        finally:
            end_children()  # also those forked before the region was unmapped
            failed = list(_told(ended))
    if failed:
        raise failed[0]


def silence(target: Target) -> None:
    """Whoever records into the rings of `target` stops that at once, also a child that cannot be
    restored."""
    with suppress(PatchError, RegionError, TargetGone):  # somebody else has just detached it
        region = Region.open(target.memory, read_maps(target.pid))
        if region is not None:
            region.silence()


def _told(children: Sequence[Ended]) -> Iterator[FentryError]:
    # A line for each child that was restored, and the errors of others, once each.
    failed: dict[int, FentryError] = {}
    for ended in children:
        failed.pop(ended.pid, None)
        if ended.error is None:
            try:
                click.echo(line_of(ended.pid, ended.done))
            except RegionError as error:
                failed[ended.pid] = error
        elif isinstance(ended.error, FentryError):
            failed[ended.pid] = ended.error
        else:
            what = f"cannot restore {ended.pid}: {ended.error.strerror}"
            failed[ended.pid] = AttachError(what)
    yield from failed.values()


def restore(target: Target, *, force: bool = False) -> str:
    """Undo everything in `target`; one line that says what was done."""
    return line_of(target.pid, undo(target, from_living=True, force=force))


def line_of(pid: int, done: Undone) -> str:
    """What was done to process `pid`. Raises RegionError when code stays mapped in it."""
    if not done.found:
        return f"{pid}: nothing of fentry is there"
    if done.found == "unfinished":
        return f"{pid}: removed what a controller left that died while attaching"
    line = f"{pid}: {done.restored} sites restored"
    line += left_alone(done.foreign)
    if done.parked_bytes:
        raise RegionError(
            f"{line}; {done.parked_bytes} bytes of code stay mapped",
            cause="a breakpoint of somebody else stands on a site"
            if done.foreign
            else "a thread stands in it: under a signal handler, or stopped",
            remedy="fentry detach again, later",
        )
    return line
