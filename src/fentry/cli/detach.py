"""fentry detach: put a process back as it was, whoever attached to it."""

from __future__ import annotations

import click

from fentry.errors import BadInput, RegionError, TargetGone
from fentry.process.maps import read_maps
from fentry.process.target import Target
from fentry.region.inherited import inheritors_of
from fentry.region.region import Region, remove_orphans
from fentry.session import detach_region


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
    try:
        region = Region.open(target.memory, read_maps(target.pid))
    except RegionError as error:
        if "not finished" not in error.what:
            raise
        with target.stopped() as halt:
            remove_orphans(halt.remote, halt.maps)
        return f"{target.pid}: removed what a controller left that died while attaching"
    if region is None:
        return f"{target.pid}: nothing of fentry is there"
    restored, foreign, parked = detach_region(target, region)
    line = f"{target.pid}: {restored} sites restored"
    if foreign:
        shown = ", ".join(f"{ip:#x}" for ip in foreign[:4])
        line += f"; {len(foreign)} left alone, somebody else changed them ({shown})"
    if parked:
        raise BadInput(
            f"{line}; {parked} bytes of code stay mapped",
            cause="a signal handler runs on top of a trampoline",
            remedy="fentry detach again, later",
        )
    return line
