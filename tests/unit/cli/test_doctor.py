"""What doctor says of a process, by what was seen of it; of a machine, by what it tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from fentry.cli import doctor as command
from fentry.cli import machine_checks, process_checks
from fentry.cli.findings import Finding, Level, ok, problem
from fentry.cli.process_checks import told
from fentry.cli.process_seen import Seen, Thread, Tracing
from fentry.errors import AttachError
from fentry.process.gates import Gate
from fentry.process.proc import Status
from fentry.region.owners import Owner, own_namespace

STATUS = Status(
    name="victim", state="S", tgid=700, tracer_pid=0, uids=(5,) * 4, ns_pid=700, threads=2,
    seccomp=0, ns_pids=(700,),
)  # fmt: skip
QUIET = Seen(700, STATUS, (Thread(700, "S", 0, 0), Thread(701, "S", 0, 0)))
NOBODY = 4194304  # more than any pid can be


def seen(**more: object) -> Seen:
    return replace(QUIET, **more)  # type: ignore[arg-type]  # fields of Seen


def threads(*states: str, seccomp: tuple[int, ...] = (0, 0)) -> tuple[Thread, ...]:
    return tuple(
        Thread(700 + i, s, 0, f) for i, (s, f) in enumerate(zip(states, seccomp, strict=True))
    )


def owner(pid: int) -> Owner:
    return Owner(1, pid, 1, own_namespace(), 1, 1, 0)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 4 CPUs, on which we may not suspend filters."""
    monkeypatch.setattr(process_checks, "possible_cpus", lambda: 4)
    monkeypatch.setattr(process_checks, "no_suspension", lambda: "we have no CAP_SYS_ADMIN")
    monkeypatch.setattr("os.geteuid", lambda: 5)


def lines(subject: Seen) -> list[str]:
    return [finding.line for finding in told(subject)]


def test_of_an_ordinary_process_nothing_is_wrong() -> None:
    assert lines(seen(memory_left=1 << 30)) == [
        "ok       process 700 (victim), uid 5, 2 threads",
        "ok       its memory can be read and written",
        "ok       1024 MiB of memory are free for rings",
    ]


def test_of_a_program_that_cannot_be_traced_nothing_else_is_said() -> None:
    error = AttachError("cannot attach to 700 (victim): not a 64-bit x86 program", cause="x86-64")
    assert lines(seen(error=error, frozen="/group")) == [
        "problem  cannot attach to 700 (victim): not a 64-bit x86 program (x86-64)"
    ]


SAID = {
    "problem  cannot attach: it is not dumpable; try: run fentry as root":
        seen(gate=Gate("it is not dumpable", "run fentry as root"), error=AttachError("no")),
    "ok       it is setuid: it runs as uid 0": seen(status=replace(STATUS, uids=(5, 0, 0, 0))),
    "ok       it lives in a pid namespace below ours, as process 7":
        seen(status=replace(STATUS, ns_pids=(700, 31, 7))),
    "ok       it lives in a user namespace of its own": seen(user_namespace=True),
    "ok       its main thread has ended; the others are traced": seen(threads=threads("Z", "S")),
    "problem  already traced by process 9 (gdb -p 700); try: wait for it, or end it":
        seen(tracers=((9, "gdb -p 700"),)),
    "ok       fentry process 9 has it stopped just now, for a moment":
        seen(tracers=((9, "python"),), tracing=Tracing((owner(9),))),
    "problem  a tracer of another pid namespace has it stopped; try: wait for it, or end it":
        seen(threads=threads("t", "t")),
    "ok       1 of its 2 threads run under seccomp; another works for fentry":
        seen(threads=threads("S", "S", seccomp=(0, 2))),
    "problem  it runs under seccomp, and its filter cannot be suspended: we have no CAP_SYS_ADMIN; "
    "try: run fentry as root": seen(threads=threads("S", "S", seccomp=(2, 2))),
    "problem  its control group is frozen: /sys/fs/cgroup/x; try: thaw it (docker unpause)":
        seen(frozen="/sys/fs/cgroup/x"),
    "warning  thread 701 sleeps uninterruptibly just now (slow storage, or it waits for a vfork "
    "child): an attach waits for it": seen(threads=threads("S", "D")),
    "warning  process 702 shares its memory (vfork, or CLONE_VM): fentry waits until it is gone, "
    "for 10 s": seen(sharers=(702,)),
    "warning  it is stopped by a signal: it can be traced, and calls nothing until it is "
    "continued; try: kill -CONT 700": seen(threads=threads("T", "T")),
    "ok       its program file has been deleted since it began: the one that runs is read":
        seen(exe="/usr/bin/victim (deleted)"),
    "ok       its program file has been replaced by another since it began: the one that runs is "
    "read": seen(exe="/usr/bin/victim (deleted)", is_replaced=True),
    "warning  deleted or replaced since it began, names of exported functions only: liba.so, "
    "libb.so; try: run fentry as root, or restart it": seen(stale=("liba.so", "libb.so")),
    "warning  a Go program: functions of the Go compiler are refused, C functions beside them are "
    "traced": seen(is_go=True),
    "warning  12 KiB of its code were made at run time and belong to no file (a just-in-time "
    "compiler): it is not traced": seen(made_bytes=3 * 4096),
    "warning  the kernel has had uprobes in it (perf, bpftrace): functions with one are refused":
        seen(has_uprobes=True),
    f"warning  a fentry has died that was attached (process {NOBODY}); 3 functions still call its "
    "code; try: fentry detach -p 700, or fentry record --adopt":
        seen(tracing=Tracing((owner(NOBODY),), sites=3)),
    "ok       it is armed and records f_*: fentry dump -p 700":
        seen(tracing=Tracing(armed=("f_*",), permanent=1)),
    "warning  2 PERMANENT ops are in it, and nobody who put them there; try: fentry status -p 700; "
    "fentry detach --force -p 700": seen(tracing=Tracing(permanent=2)),
    "warning  it was forked from a traced process: its calls go through fentry's code and are not "
    "recorded; try: fentry detach -p 700": seen(tracing=Tracing(is_inherited=True)),
    "problem  a fentry is attached that nobody can join: it follows forked children; try: fentry "
    "status -p 700; fentry detach -p 700":
        seen(tracing=Tracing(is_used=True, alone="it follows forked children")),
    "warning  what fentry left in it cannot be read: it is damaged; try: fentry detach -p 700":
        seen(tracing=Tracing(broken="it is damaged")),
    "problem  60 MiB of memory are free for rings: record asks for 32 MiB, and may have half of "
    "them; try: fentry record -m 4096K": seen(memory_left=60 << 20),
    "problem  0 MiB of memory are free for rings: record asks for 32 MiB, and may have half of "
    "them; try: fentry stat needs no ring": seen(memory_left=0),
    "warning  its address space may grow by 40 MiB only (RLIMIT_AS): rings of 32 MiB and the code "
    "of fentry have to fit; try: fentry record -m 2048K": seen(address_space_left=40 << 20),
    "problem  it may open no more files (RLIMIT_NOFILE), and fentry needs one shortly; try: "
    "prlimit --nofile=N --pid 700": seen(descriptors_left=0),
}  # fmt: skip


@pytest.mark.parametrize("line", SAID)
def test_what_would_go_wrong_is_said_with_its_remedy(line: str) -> None:
    assert line in lines(SAID[line])


def test_root_is_not_told_of_what_only_others_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(process_checks, "no_suspension", lambda: "")
    said = told(seen(stale=("liba.so",), threads=threads("S", "S", seccomp=(2, 2))))
    assert {finding.level for finding in said} == {Level.OK}


@pytest.mark.parametrize(("scope", "capable", "said"), [
    (0, False, "ok       no CAP_SYS_PTRACE: processes of the same user can be attached to"),
    (0, True, "ok       CAP_SYS_PTRACE: any process can be attached to"),
    (1, True, "ok       CAP_SYS_PTRACE: any process can be attached to"),
    (1, False, "warning  Yama: kernel.yama.ptrace_scope is 1: only who allows it, or is started by "
     "fentry, can be traced; try: run fentry as root, or sysctl kernel.yama.ptrace_scope=0, or let "
     "fentry start the program: fentry record -- CMD"),
    (2, False, "problem  Yama: kernel.yama.ptrace_scope is 2: nobody can be attached to without "
     "CAP_SYS_PTRACE; try: run fentry as root, or sysctl kernel.yama.ptrace_scope=0"),
    (3, True, "problem  Yama: kernel.yama.ptrace_scope is 3: nobody can be attached to; try: boot "
     "without it: it stays at 3"),
])  # fmt: skip
def test_rights_are_those_of_yama_and_capabilities(
    monkeypatch: pytest.MonkeyPatch, scope: int, capable: bool, said: str
) -> None:
    monkeypatch.setattr(machine_checks, "yama_scope", lambda: scope)
    monkeypatch.setattr(machine_checks, "may_ptrace_anyone", lambda: capable)
    monkeypatch.setattr(machine_checks, "is_in_initial_user_namespace", lambda: True)
    assert said in [finding.line for finding in machine_checks.machine()]


@pytest.mark.parametrize(("who", "level"), [("ptrace", "warning"), ("never", "problem")])
def test_forbidden_writes_are_told(monkeypatch: pytest.MonkeyPatch, who: str, level: str) -> None:
    monkeypatch.setattr(machine_checks, "forced_writes", lambda: who)
    told = [one for one in machine_checks.machine() if "force_override" in one.text]
    assert [(one.level, one.remedy) for one in told] == [
        (level, "boot with proc_mem.force_override=always")
    ]


def test_selinux_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    switch = tmp_path / "deny_ptrace"
    monkeypatch.setattr(machine_checks, "_SELINUX", str(switch))
    for content, expected in (("1 1", 1), ("0 1", 0)):
        switch.write_text(content)
        told = [one for one in machine_checks.machine() if "SELinux" in one.text]
        assert len(told) == expected


@pytest.mark.parametrize(
    ("found", "code"), [([ok("fine")], 0), ([problem("bad", "better")], 1)], ids=["ok", "problem"]
)
def test_the_exit_status_and_json_say_whether_there_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, found: list[Finding], code: int
) -> None:
    monkeypatch.setattr(command, "machine", lambda: found)
    done = CliRunner().invoke(command.doctor, ["--json"])
    assert done.exit_code == code
    first = found[0]
    assert json.loads(done.stdout) == {
        "machine": [{"level": str(first.level), "text": first.text, "remedy": first.remedy}],
        "process": [],
    }
