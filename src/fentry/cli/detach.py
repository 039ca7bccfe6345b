"""fentry detach: put a process back as it was, whoever attached to it."""

from __future__ import annotations

import click

from fentry.cli.options import left_alone
from fentry.dispatch.detach import undo
from fentry.errors import RegionError, TargetGone
from fentry.process.target import Target
from fentry.region.inherited import inheritors_of


@click.command()
@click.option("-p", "--pid", type=int, required=True, help="The process.")
def detach(pid: int) -> None:
    """Restore the text of a process and unmap what fentry left in it.

    Forked children that inherited the tracing (they are silent) are restored as well.
    """
    children = inheritors_of(pid)
    for each in [pid, *children]:
        try:
            target = Target(each)
        except TargetGone:
            if each == pid:
                raise
            continue  # a child that has ended meanwhile
        try:
            target.sweep()
            click.echo(restore(target))
        finally:
            target.close()


def restore(target: Target) -> str:
    """Undo everything in `target`; one line that says what was done."""
    done = undo(target, from_living=True)
    if not done.found:
        return f"{target.pid}: nothing of fentry is there"
    if done.found == "unfinished":
        return f"{target.pid}: removed what a controller left that died while attaching"
    line = f"{target.pid}: {done.restored} sites restored"
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
