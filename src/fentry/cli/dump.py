"""fentry dump: what an armed process has called last."""

from __future__ import annotations

from contextlib import closing

import click

from fentry.cli.attached import interruptible
from fentry.cli.core import recover_from
from fentry.cli.options import max_stop_option, parse_seconds
from fentry.cli.record import check_output
from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.permanent import permanent, recorders_of
from fentry.errors import BadInput
from fentry.events.clock import ClockPair
from fentry.process.target import Target
from fentry.recording import Recording, Summary
from fentry.ring.layout import MODE_OVERWRITE
from fentry.session import Options, Session, adopt
from fentry.snapshot import Written, write_snapshot
from fentry.snapshot.process import ProcessSource


@click.command()
@click.option("-p", "--pid", type=int, help="The process.")
@click.option("--core", metavar="FILE", help="The core file of a process that was armed.")
@click.option("-o", "--output", default="trace.fentry", show_default=True, help="Trace file.")
@click.option("--disarm", is_flag=True, help="Then put the process back as it was.")
@max_stop_option
def dump(pid: int | None, core: str | None, output: str, disarm: bool, max_stop: str) -> None:
    """Write the last calls of a process that `fentry arm` has armed.

    The process is not stopped and goes on recording, unless with --disarm; what was written stays
    in its memory and is written again by the next dump if it is still there.
    """
    if (pid is None) == (core is None) or (core is not None and disarm):
        raise BadInput("say what to dump: -p PID, or --core FILE", remedy="fentry dump -h")
    check_output(output)
    if core is not None:
        recover_from(core, output)
        click.echo(f"next: fentry report -i {output}", err=True)
        return
    assert pid is not None
    with closing(Target(pid)) as target:
        if not recorders_of(target):
            raise BadInput(
                f"process {pid} is not armed",
                cause="nothing records there without a controller",
                remedy=f"fentry arm -p {pid} -F GLOB",
            )
        if not disarm:
            click.echo(_line(write_snapshot(ProcessSource(target), output), output), err=True)
            return
    with interruptible(), adopt(pid, Options(max_stop_s=parse_seconds(max_stop))) as session:
        summary = _disarm(session, output)
    click.echo(_last_line(summary, output), err=True)


def _disarm(session: Session, output: str) -> Summary:
    ops = _recorder(session)
    if session.ring.mode == MODE_OVERWRITE:
        session.top.rewind()
    clock = [ClockPair(*pair) for pair in session.top.kept_clock]
    with Recording(session, ops, output, clock) as recording:
        for one in permanent(session.ops.values()):
            session.unregister(one)
    return recording.summary


def _recorder(session: Session) -> Ops:
    found = [one for one in permanent(session.ops.values()) if one.callback is Callback.RECORD]
    if not found:
        raise BadInput(f"process {session.pid} is not armed", cause="somebody has just disarmed it")
    return found[0]


def _line(written: Written, path: str) -> str:
    return (
        f"{written.events} events, {written.overrun} older ones forgotten"
        f"; {written.functions} functions; nothing was stopped; still armed"
        f"; next: fentry report -i {path}"
    )


def _last_line(summary: Summary, path: str) -> str:
    stops = summary.stops_ns
    return (
        f"{summary.events} events, {summary.overrun} older ones forgotten"
        + (f", {summary.incomplete} incomplete" if summary.incomplete else "")
        + f"; {summary.functions} functions"
        + f"; stopped {len(stops)} times, {sum(stops) / 1e6:.1f} ms"
        + f", longest {max(stops, default=0) / 1e6:.1f} ms; disarmed"
        + (f"; {summary.parked_bytes} bytes parked" if summary.parked_bytes else "")
        + f"; next: fentry report -i {path}"
    )
