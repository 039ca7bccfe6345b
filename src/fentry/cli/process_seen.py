"""What `fentry doctor` sees of a process. It is looked at only: never stopped, never written to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from fentry.dispatch.detach import is_in_use
from fentry.dispatch.permanent import permanent_rows, recorders_of
from fentry.errors import BadInput, FentryError, PatchError, RegionError, TargetGone
from fentry.process.freezer import frozen_group
from fentry.process.gates import Gate, shut_gate
from fentry.process.limits import address_space_left, available_bytes, descriptors_left
from fentry.process.maps import Mapping, read_maps
from fentry.process.namespaces import namespace_of
from fentry.process.proc import (
    Status,
    command_of,
    list_tids,
    living,
    read_stat,
    read_status,
)
from fentry.process.target import Target, sharers_of
from fentry.region.layout import HeaderFlag, Kind, SiteState
from fentry.region.owners import Owner
from fentry.region.region import Region
from fentry.symbols.elf_file import ElfFile

_GO_SECTIONS = {".go.buildinfo", ".note.go.buildid", ".gopclntab"}  # cmd/link of Go
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread: its state as in proc(5), its tracer (0 for none), its seccomp mode."""

    tid: int
    state: str
    tracer: int
    seccomp: int

    @property
    def is_dead(self) -> bool:
        """Whether it has ended and waits to be reaped."""
        return self.state in "ZXx"


@dataclass(frozen=True, slots=True)
class Tracing:
    """What fentry has in a process: controllers, what is recorded without one (`armed`), how many
    sites call something and how many ops are PERMANENT.

    `alone` is why nobody can join, "" if one can; `broken` why nothing of this is known.
    """

    owners: tuple[Owner, ...] = ()
    armed: tuple[str, ...] = ()
    permanent: int = 0
    sites: int = 0
    is_inherited: bool = False
    is_used: bool = False
    alone: str = ""
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A process at one moment. What could not be seen has its default: without rights, much.

    `error` is what an attach would say before it stops anything, `gate` what keeps us out then.
    `stale` are names of mapped files that have been deleted or replaced, `made_bytes` of code that
    no file holds; `user_namespace` whether it lives in another than ours; `tracers` are pids with
    their commands. What limits it: bytes and descriptors that are left, None for no limit.
    """

    pid: int
    status: Status
    threads: tuple[Thread, ...]
    parent: int = 0
    error: FentryError | None = None
    gate: Gate | None = None
    tracers: tuple[tuple[int, str], ...] = ()
    exe: str = ""
    is_replaced: bool = False
    stale: tuple[str, ...] = ()
    is_go: bool = False
    made_bytes: int = 0
    has_uprobes: bool = False
    user_namespace: bool = False
    frozen: str = ""
    sharers: tuple[int, ...] = ()
    tracing: Tracing | None = None
    memory_left: int = 1 << 62
    address_space_left: int | None = None
    descriptors_left: int | None = None

    @property
    def living(self) -> tuple[Thread, ...]:
        """The threads that have not ended."""
        return tuple(thread for thread in self.threads if not thread.is_dead)


def look(pid: int) -> Seen:
    """Process `pid` as it is now. Raises TargetGone, and BadInput for what is no process."""
    error, (tracing, code), maps = _inside(pid)
    if isinstance(error, BadInput | TargetGone):
        raise error
    status, threads, exe = read_status(pid), _threads(pid), _exe(pid)
    outside = isinstance(error, FentryError) and isinstance(error.__cause__, OSError)
    theirs = namespace_of(pid, "user")
    return Seen(
        pid,
        status,
        threads,
        parent=read_stat(pid).parent_pid,
        error=error,
        gate=shut_gate(pid, status) if outside else None,
        tracers=tuple((one, command_of(one)) for one in sorted({t.tracer for t in threads} - {0})),
        exe=exe,
        is_replaced=exe.endswith(_DELETED)
        and os.path.exists(f"{living(pid)}/root{exe.removesuffix(_DELETED)}"),
        stale=_stale(maps, exe),
        is_go=bool(maps) and _is_go(pid),
        made_bytes=_made_bytes(maps, code),
        has_uprobes=any(m.path == "[uprobes]" for m in maps),
        user_namespace=theirs not in (None, namespace_of(os.getpid(), "user")),
        frozen=frozen_group(pid),
        sharers=tuple(sorted(sharers_of(pid))),
        tracing=tracing,
        memory_left=available_bytes(pid),
        address_space_left=address_space_left(pid, status.vm_bytes),
        descriptors_left=descriptors_left(pid),
    )


def _threads(pid: int) -> tuple[Thread, ...]:
    found = []
    for tid in list_tids(pid):
        try:
            one = read_status(pid, tid)
        except TargetGone:
            continue
        found.append(Thread(tid, one.state, one.tracer_pid, one.seccomp))
    return tuple(found)


Known = tuple[Tracing | None, Sequence[tuple[int, int]]]


def _inside(pid: int) -> tuple[FentryError | None, Known, Sequence[Mapping]]:
    # What only its memory tells: what fentry has there, with where its code lies, and the maps.
    try:
        with closing(Target(pid)) as target:
            maps = read_maps(pid)
            return None, _tracing(target, maps), maps
    except FentryError as error:
        return error, (None, ()), ()


def _tracing(target: Target, maps: Sequence[Mapping]) -> Known:
    try:
        region = Region.open(target.memory, maps)
        if region is None:
            return None, ()
        owners = tuple(region.owners.every)
        code = [(s.address, s.end) for s in region.of_kind(Kind.CODE)]
        found = Tracing(
            owners=owners,
            armed=tuple(recorders_of(target)),
            permanent=len(permanent_rows(region)),
            sites=int((region.registry.sites["state"] == SiteState.CALL).sum()),
            is_inherited=region.registry.is_inherited() and not region.is_followed,
            is_used=is_in_use(region),
            alone=_alone(region),
        )
    except (RegionError, PatchError) as error:  # unfinished, damaged, or taken away meanwhile
        return Tracing(broken=error.what), ()
    return found, code


def _alone(region: Region) -> str:
    if region.follow is not None:
        return "it follows forked children"
    if int(region.registry.header["flags"]) & HeaderFlag.OFF:
        return "it has switched all functions off"
    return ""


def _exe(pid: int) -> str:
    try:
        return os.readlink(f"{living(pid)}/exe")
    except OSError:
        return ""


def _stale(maps: Sequence[Mapping], exe: str) -> tuple[str, ...]:
    code = {m.path_undeleted for m in maps if m.executable and m.inode and m.is_deleted}
    paths = code - {exe.removesuffix(_DELETED)}
    return tuple(sorted(os.path.basename(path) for path in paths if not path.startswith("/memfd:")))


def _is_go(pid: int) -> bool:
    try:
        image = ElfFile.open(f"{living(pid)}/exe")
        return any(section.name in _GO_SECTIONS for section in image.sections)
    except (OSError, BadInput):
        return False


def _made_bytes(maps: Sequence[Mapping], ours: Sequence[tuple[int, int]]) -> int:
    made = [m for m in maps if m.executable and not m.inode and not m.path.startswith("[")]
    return sum(
        m.size for m in made if not any(start < m.end and m.start < end for start, end in ours)
    )
