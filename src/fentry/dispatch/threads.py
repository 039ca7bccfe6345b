"""Which threads an ops sees: what a person asks for, and the lists as threads come and go.

The kernel's set_ftrace_pid and set_ftrace_notrace_pid with function-fork
(kernel/trace/trace_pid.c); docs/design/threads.md says where it differs.
"""

from __future__ import annotations

import shlex
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from fentry.errors import BadInput
from fentry.region.layout import ThreadBit, ThreadSetFlag
from fentry.region.threads import LONGEST_NAMES, StoredSet


@dataclass(frozen=True, slots=True)
class ThreadFilter:
    """The threads of an ops: those in `tids` or whose name matches a glob of `names`, but none of
    `notrace_tids`.  Without `tids` and `names`: all but those.

    tids are as /proc shows them here.  With `follow`, threads made later are seen as well.
    """

    tids: AbstractSet[int] = frozenset()
    notrace_tids: AbstractSet[int] = frozenset()
    names: tuple[str, ...] = ()
    follow: bool = False

    def __post_init__(self) -> None:
        for name in ("tids", "notrace_tids"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))
        object.__setattr__(self, "names", tuple(self.names))

    def __bool__(self) -> bool:
        """Whether it filters at all: an ops with an empty one sees every thread."""
        return bool(self.tids or self.notrace_tids or self.names)

    @property
    def only(self) -> bool:
        """Whether there is a list, so that threads that are not in it are not seen."""
        return bool(self.tids or self.names)

    @property
    def text(self) -> str:
        """In words, as `status` shows it."""
        parts = [*map(str, sorted(self.tids)), *(f"named {shlex.quote(n)}" for n in self.names)]
        if self.only and self.follow:
            parts.append("new ones")
        parts += [f"not {tid}" for tid in sorted(self.notrace_tids)]
        return ", ".join(parts)


def check(wanted: ThreadFilter, pid: int, living: AbstractSet[int]) -> None:
    """Raise BadInput for tids that are no threads of `pid`, and for names that cannot be kept."""
    strangers = sorted((wanted.tids | wanted.notrace_tids) - living)
    if strangers:
        raise BadInput(
            f"{', '.join(map(str, strangers))}: no thread of process {pid}",
            remedy=f"ps -L -p {pid} lists them",
        )
    if any(not name or "\0" in name for name in wanted.names):
        raise BadInput("an empty name of a thread", remedy="'*' for all")
    if len(_joined(wanted.names).encode(errors="surrogateescape")) > LONGEST_NAMES:
        raise BadInput(f"the names of threads are longer than {LONGEST_NAMES} bytes together")


def _joined(names: tuple[str, ...]) -> str:
    return " ".join(map(shlex.quote, names))


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of one filter as they are now: living threads only.

    `named` are those whose name matches; `existed`, with follow, those that are not seen because
    they were there before.
    """

    tids: frozenset[int] = frozenset()
    notrace: frozenset[int] = frozenset()
    named: frozenset[int] = frozenset()
    existed: frozenset[int] = frozenset()

    @property
    def every(self) -> frozenset[int]:
        """Those that stand for one thread, and not for whoever has a name."""
        return self.tids | self.notrace | self.existed

    def without(self, ended: AbstractSet[int], named: frozenset[int]) -> Lists:
        """The lists less threads that have ended, and with the names as they are now."""
        return Lists(self.tids - ended, self.notrace - ended, named, self.existed - ended)


def lists_of(wanted: ThreadFilter, living: AbstractSet[int], named: frozenset[int]) -> Lists:
    """The lists of a filter that is set now."""
    existed = living - wanted.tids if wanted.only and wanted.follow else frozenset()
    return Lists(frozenset(wanted.tids), frozenset(wanted.notrace_tids), named, frozenset(existed))


def stored(wanted: ThreadFilter, lists: Lists, start_time: int = 0) -> StoredSet:
    """What a table is to say.  Threads that have ended decide nothing; an adopter knows of them."""
    listed, default = lists.tids | lists.named, True
    if not wanted.only:
        differs = lists.notrace
    elif wanted.follow:
        differs = (lists.existed - listed) | lists.notrace
    else:
        differs, default = listed - lists.notrace, False
    ended = (wanted.tids - lists.tids) | (wanted.notrace_tids - lists.notrace)
    bits: dict[int, ThreadBit] = {}
    for tids, bit in (
        (differs, ThreadBit.DIFFERS),
        (wanted.tids, ThreadBit.LISTED),
        (wanted.notrace_tids, ThreadBit.NOTRACE),
        (ended, ThreadBit.ENDED),
    ):
        for tid in tids:
            bits[tid] = bits.get(tid, ThreadBit(0)) | bit
    flags = ThreadSetFlag.ONLY if wanted.only else ThreadSetFlag.NONE
    flags |= ThreadSetFlag.FOLLOW if wanted.follow else ThreadSetFlag.NONE
    return StoredSet(bits, default, flags, _joined(wanted.names), start_time)


def restored(found: StoredSet) -> tuple[ThreadFilter, Lists]:
    """Filter and lists of a table; names are to be looked up again."""
    try:
        names = tuple(shlex.split(found.names))
    except ValueError:  # the target wrote over it
        names = ()

    def having(bit: ThreadBit) -> frozenset[int]:
        return frozenset(tid for tid, bits in found.bits.items() if bits & bit)

    follow = bool(found.flags & ThreadSetFlag.FOLLOW)
    wanted = ThreadFilter(having(ThreadBit.LISTED), having(ThreadBit.NOTRACE), names, follow)
    ended = having(ThreadBit.ENDED)
    tids, notrace = frozenset(wanted.tids - ended), frozenset(wanted.notrace_tids - ended)
    existed = having(ThreadBit.DIFFERS) - notrace if wanted.only and follow else frozenset()
    return wanted, Lists(tids, notrace, existed=existed)
