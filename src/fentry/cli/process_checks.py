"""What `fentry doctor` says of a process: each check is a function of what was seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from fentry.cli.findings import Finding, ok, problem, warning
from fentry.cli.process_seen import Seen, look
from fentry.errors import BadInput, TargetGone
from fentry.process.gates import no_suspension
from fentry.process.proc import possible_cpus

_RING_BYTES = 8 << 20  # of a CPU: what `fentry record` asks for unless told otherwise
_OTHER_BYTES = 32 << 20  # registry, code and counters, of some thousand functions
_MIB = 1 << 20


def process(pid: int) -> list[Finding]:
    """All there is to say of process `pid`, what keeps fentry out of it first."""
    try:
        return told(look(pid))
    except (TargetGone, BadInput) as error:  # no such process, a zombie, a thread of one
        cause = f" ({error.cause})" if error.cause else ""
        return [problem(error.what + cause, error.remedy)]


def told(seen: Seen) -> list[Finding]:
    """What the checks say of a process. Of a program that is not of our kind, nothing else."""
    if seen.error is not None and seen.gate is None:
        cause = f" ({seen.error.cause})" if seen.error.cause else ""
        return [problem(seen.error.what + cause, seen.error.remedy)]
    return [finding for check in CHECKS for finding in check(seen)]


# Who it is


def _identity(seen: Seen) -> Iterator[Finding]:
    status, count = seen.status, len(seen.living)
    threads = f"{count} thread{'s' * (count != 1)}"
    yield ok(f"process {seen.pid} ({status.name}), uid {status.uids[0]}, {threads}")


def _setuid(seen: Seen) -> Iterator[Finding]:
    if seen.gate is None and len(set(seen.status.uids)) > 1:
        yield ok(f"it is setuid: it runs as uid {seen.status.uids[1]}")


def _namespaces(seen: Seen) -> Iterator[Finding]:
    if len(seen.status.ns_pids) > 1:
        yield ok(f"it lives in a pid namespace below ours, as process {seen.status.ns_pids[-1]}")
    if seen.user_namespace:
        yield ok("it lives in a user namespace of its own")


def _leader(seen: Seen) -> Iterator[Finding]:
    if any(thread.tid == seen.pid and thread.is_dead for thread in seen.threads):
        yield ok("its main thread has ended; the others are traced")


# What keeps fentry out


def _access(seen: Seen) -> Iterator[Finding]:
    if seen.gate is not None:
        yield problem(f"cannot attach: {seen.gate.cause}", seen.gate.remedy)
    else:
        yield ok("its memory can be read and written")


def _tracers(seen: Seen) -> Iterator[Finding]:
    ours = {owner.pid for owner in seen.tracing.owners} if seen.tracing else set()
    for pid, command in seen.tracers:
        if pid in ours:
            yield ok(f"fentry process {pid} has it stopped just now, for a moment")
        else:
            yield problem(f"already traced by process {pid} ({command})", "wait for it, or end it")
    if not seen.tracers and any(thread.state == "t" for thread in seen.threads):
        yield problem("a tracer of another pid namespace has it stopped", "wait for it, or end it")


def _filters(seen: Seen) -> Iterator[Finding]:
    count = sum(thread.seccomp != 0 for thread in seen.living)
    if not count:
        return
    if count < len(seen.living):
        yield ok(f"{count} of its {len(seen.living)} threads run under seccomp; another works "
                 "for fentry")  # fmt: skip
    elif seen.gate is None and (why := no_suspension()):
        yield problem(f"it runs under seccomp, and its filter cannot be suspended: {why}",
                      "run fentry as root")  # fmt: skip
    elif seen.gate is None:
        yield ok("it runs under seccomp: its filter is suspended while a thread works for fentry")


def _frozen(seen: Seen) -> Iterator[Finding]:
    if seen.frozen:
        yield problem(f"its control group is frozen: {seen.frozen}", "thaw it (docker unpause)")


def _sleepers(seen: Seen) -> Iterator[Finding]:
    asleep = [thread.tid for thread in seen.threads if thread.state == "D"]
    if asleep and not seen.frozen:
        yield warning(f"thread {asleep[0]} sleeps uninterruptibly just now (slow storage, or it "
                      "waits for a vfork child): an attach waits for it")  # fmt: skip


def _sharers(seen: Seen) -> Iterator[Finding]:
    if seen.sharers:
        yield warning(f"process {seen.sharers[0]} shares its memory (vfork, or CLONE_VM): fentry "
                      "waits until it is gone, for 10 s")  # fmt: skip


# What misleads


def _stopped(seen: Seen) -> Iterator[Finding]:
    if seen.living and all(thread.state == "T" for thread in seen.living):
        yield warning("it is stopped by a signal: it can be traced, and calls nothing until it is "
                      "continued", f"kill -CONT {seen.pid}")  # fmt: skip


def _binary(seen: Seen) -> Iterator[Finding]:
    if seen.exe.endswith(" (deleted)"):
        how = "replaced by another" if seen.is_replaced else "deleted"
        yield ok(f"its program file has been {how} since it began: the one that runs is read")


def _libraries(seen: Seen) -> Iterator[Finding]:
    if seen.stale and os.geteuid():
        yield warning("deleted or replaced since it began, names of exported functions only: "
                      + ", ".join(seen.stale), "run fentry as root, or restart it")  # fmt: skip


def _go(seen: Seen) -> Iterator[Finding]:
    if seen.is_go:
        yield warning("a Go program: functions of the Go compiler are refused, C functions beside "
                      "them are traced")  # fmt: skip


def _made_at_run_time(seen: Seen) -> Iterator[Finding]:
    if seen.made_bytes:
        size = -(-seen.made_bytes >> 10)
        yield warning(f"{size} KiB of its code were made at run time and belong to no file "
                      "(a just-in-time compiler): it is not traced")  # fmt: skip


def _uprobes(seen: Seen) -> Iterator[Finding]:
    if seen.has_uprobes:
        yield warning("the kernel has had uprobes in it (perf, bpftrace): functions with one are "
                      "refused")  # fmt: skip


# fentry itself


def _controllers(seen: Seen) -> Iterator[Finding]:
    if seen.tracing is None or seen.tracing.is_inherited:
        return
    living = [owner for owner in seen.tracing.owners if owner.is_alive]
    for owner in living:
        yield ok(f"fentry is attached: {owner.text}; another one can work beside it")
    if seen.tracing.is_used and seen.tracing.alone:
        yield problem(f"a fentry is attached that nobody can join: {seen.tracing.alone}",
                      f"fentry status -p {seen.pid}; fentry detach -p {seen.pid}")  # fmt: skip
    dead = [owner for owner in seen.tracing.owners if owner.pid and not owner.is_alive]
    if dead and not seen.tracing.permanent:
        yield warning(f"a fentry has died that was attached (process {dead[0].pid}); "
                      f"{seen.tracing.sites} functions still call its code",
                      f"fentry detach -p {seen.pid}, or fentry record --adopt")  # fmt: skip


def _armed(seen: Seen) -> Iterator[Finding]:
    if seen.tracing is None:
        return
    for words in seen.tracing.armed:
        yield ok(f"it is armed and records {words}: fentry dump -p {seen.pid}")
    others = seen.tracing.permanent - len(seen.tracing.armed)
    if others and not any(owner.is_alive for owner in seen.tracing.owners):
        yield warning(
            f"{others} PERMANENT ops are in it, and nobody who put them there",
            f"fentry status -p {seen.pid}; fentry detach --force -p {seen.pid}",
        )


def _inherited(seen: Seen) -> Iterator[Finding]:
    if seen.tracing is not None and seen.tracing.is_inherited:
        yield warning("it was forked from a traced process: its calls go through fentry's code and "
                      "are not recorded", f"fentry detach -p {seen.pid}")  # fmt: skip


def _broken(seen: Seen) -> Iterator[Finding]:
    if seen.tracing is not None and seen.tracing.broken:
        yield warning(f"what fentry left in it cannot be read: {seen.tracing.broken}",
                      f"fentry detach -p {seen.pid}")  # fmt: skip


# Limits


def _memory(seen: Seen) -> Iterator[Finding]:
    rings = _RING_BYTES * possible_cpus()
    free = f"{seen.memory_left // _MIB} MiB of memory are free for rings"
    if rings <= seen.memory_left // 2:
        yield ok(free)
    else:
        yield problem(f"{free}: record asks for {rings // _MIB} MiB, and may have half of them",
                      _smaller(seen.memory_left // 2))  # fmt: skip


def _address_space(seen: Seen) -> Iterator[Finding]:
    rings = _RING_BYTES * possible_cpus()
    left = seen.address_space_left
    if left is not None and left < rings + _OTHER_BYTES:
        yield warning(
            f"its address space may grow by {left // _MIB} MiB only (RLIMIT_AS): rings of "
            f"{rings // _MIB} MiB and the code of fentry have to fit",
            _smaller(left - _OTHER_BYTES),
        )


def _smaller(count: int) -> str:
    # The option of record for rings of so many bytes altogether, a power of two for each CPU.
    each = count // possible_cpus() >> 10
    if each < 64:
        return "fentry stat needs no ring"
    return f"fentry record -m {1 << each.bit_length() - 1}K"


def _descriptors(seen: Seen) -> Iterator[Finding]:
    if seen.descriptors_left == 0:
        yield problem("it may open no more files (RLIMIT_NOFILE), and fentry needs one shortly",
                      f"prlimit --nofile=N --pid {seen.pid}")  # fmt: skip


CHECKS: tuple[Callable[[Seen], Iterator[Finding]], ...] = (
    _identity, _setuid, _namespaces, _leader,
    _access, _tracers, _filters, _frozen, _sleepers, _sharers,
    _stopped, _binary, _libraries, _go, _made_at_run_time, _uprobes,
    _controllers, _armed, _inherited, _broken,
    _memory, _address_space, _descriptors,
)  # fmt: skip
