"""fentry doctor: what would go wrong, on this machine and with a process."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from fentry.cli.findings import Level
from fentry.cli.machine_checks import machine
from fentry.cli.process_checks import process


@click.command()
@click.option("-p", "--pid", type=int, help="A process to look at; it is not stopped.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(pid: int | None, as_json: bool) -> None:
    """Check this machine, and a process, for what would keep fentry out or mislead it.

    Exit status 1 if something is a problem.
    """
    found = {"machine": machine(), "process": process(pid) if pid is not None else []}
    findings = [finding for part in found.values() for finding in part]
    if as_json:
        click.echo(
            json.dumps({name: [asdict(one) for one in part] for name, part in found.items()})
        )
    else:
        for finding in findings:
            click.echo(finding.line)
    sys.exit(any(finding.level is Level.PROBLEM for finding in findings))
