"""fentry doctor: what would go wrong, on this machine and with a process."""

from __future__ import annotations

import os
import sys

import click

from fentry.errors import FentryError, TargetGone
from fentry.process.gates import may_ptrace_anyone, yama_scope
from fentry.process.limits import available_bytes
from fentry.process.maps import read_maps
from fentry.process.proc import command_of, list_tids, possible_cpus, read_status
from fentry.process.target import Target, cpu_flags
from fentry.region.registry import find_registry
from fentry.ring.clock import clock_source

OK, WARN, BAD = "ok", "warning", "problem"

Finding = tuple[str, str]


@click.command()
@click.option("-p", "--pid", type=int, help="A process to look at; it is not stopped.")
def doctor(pid: int | None) -> None:
    """Check this machine, and a process, for what would keep fentry out or mislead it.

    Exit status 1 if something is a problem.
    """
    findings = machine() + (process(pid) if pid is not None else [])
    for kind, text in findings:
        click.echo(f"{kind:8} {text}")
    sys.exit(any(kind == BAD for kind, _ in findings))


def machine() -> list[Finding]:
    """What there is to say of this machine and user."""
    flags = cpu_flags()
    source, scope = clock_source(), yama_scope()
    found = [
        (OK, f"{possible_cpus()} possible CPUs, Linux {os.uname().release}"),
        (OK, "clock source tsc")
        if source == "tsc"
        else (BAD, f"clock source {source}: record needs tsc, stat does not"),
    ]
    for flag, without in (
        ("lahf_lm", BAD), ("rdpid", OK), ("fsgsbase", WARN), ("constant_tsc", WARN),
    ):  # fmt: skip
        if flag not in flags:
            found.append((without, f"the processor has no {flag}"))
    if may_ptrace_anyone():
        found.append((OK, "CAP_SYS_PTRACE: any process can be attached to"))
    elif scope == 0:
        found.append((OK, "no CAP_SYS_PTRACE: processes of the same user can be attached to"))
    else:
        what = {1: "only children of the tracer", 2: "nobody without CAP_SYS_PTRACE", 3: "nobody"}
        found.append((BAD, f"kernel.yama.ptrace_scope is {scope}: {what.get(scope, '?')}"))
    forced = _force_override()
    if forced:
        found.append((WARN if forced == "ptrace" else BAD, f"proc_mem.force_override={forced}"))
    return found


def process(pid: int) -> list[Finding]:
    """What there is to say of one process."""
    try:
        status = read_status(pid)
    except TargetGone as error:
        return [(BAD, error.what)]
    found: list[Finding] = [
        (OK, f"process {pid} ({status.name}), uid {status.uids[0]}, {status.threads} threads")
    ]
    if status.tracer_pid:
        tracer = status.tracer_pid
        found.append((BAD, f"already traced by process {tracer} ({command_of(tracer)})"))
    filters = {read_status(pid, tid).seccomp for tid in list_tids(pid)}
    if filters != {0}:
        kind = OK if may_ptrace_anyone() else BAD
        found.append((kind, "it runs under seccomp: root suspends the filter, others are refused"))
    try:
        target = Target(pid)
    except FentryError as error:
        return [*found, (BAD, str(error).replace("\n ", ";"))]
    try:
        found.append((OK, "its memory can be read and written"))
        if find_registry(read_maps(pid)) is not None:
            found.append((WARN, f"fentry is or was attached: fentry status -p {pid}"))
        if any(m.path == "[uprobes]" for m in read_maps(pid)):
            found.append((WARN, "kernel uprobes are in use: bpftrace or perf may change its text"))
    finally:
        target.close()
    found.append((OK, f"{available_bytes(pid) >> 20} MiB of memory are free for rings"))
    return found


def _force_override() -> str:
    # Documentation/admin-guide/kernel-parameters.txt, proc_mem.force_override
    with open("/proc/cmdline", encoding="utf-8", errors="replace") as file:
        for word in file.read().split():
            name, _, value = word.partition("=")
            if name == "proc_mem.force_override" and value in ("never", "ptrace"):
                return value
    return ""
