"""The children that one target has forked while they are followed: seen, and ended.

They record by themselves, from their first instruction (docs/design/forks.md). Here is what a
controller knows of them, as far as it can look at them in time, and how their text gets back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fentry.dispatch.detach import Undone, region_is_unused, undo
from fentry.errors import FentryError, TargetGone
from fentry.process.proc import (
    all_pids,
    command_of,
    has_command,
    is_dead,
    read_auxv,
    read_stat,
    thread_name,
)
from fentry.process.target import Target
from fentry.region.inherited import Bearer, Identity, bearer, bearers
from fentry.region.region import Region

LOOK_S = 0.02
END_LIMIT_S = 5.0
_SHARE = 10  # looking takes at most one part of so many of the time
_PAUSE_S = 0.005
_IN_EXEC_S = 0.2  # for so long nobody may look at a process that is in the middle of an exec

FORK, EXEC, EXIT, DETACHED, LOST = "fork", "exec", "exit", "detached", "lost"


@dataclass(frozen=True, slots=True)
class News:
    """What became of a child: `kind` FORK, EXEC, EXIT, DETACHED, or LOST where we may not look at
    it any more; `parent` and `name` (its comm, of an exec the new command) as far as they were
    seen. `at_ns` of CLOCK_MONOTONIC is when it was noticed."""

    kind: str
    pid: int
    parent: int
    name: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What putting one child back came to: `error` if it could not be done."""

    pid: int
    done: Undone
    error: FentryError | OSError | None = None


class Followed:
    """The living children of a region, by pid; look() keeps them up to date.

    `unreachable` are children that could not be put back, or not even looked at, and why.
    """

    def __init__(self, identity: Identity, maker: int) -> None:
        self.identity = identity
        self.living: dict[int, Bearer] = {}
        self.unreachable: dict[int, str] = {}
        self.count = 0
        self._maker = maker
        self._auxv = read_auxv(maker)
        self._parents: dict[int, int] = {}
        self._strangers: set[int] = set()
        self._refused: dict[int, float] = {}
        self._news: list[News] = []
        self._next_look = 0.0

    def look(self) -> None:
        """See who was forked and who has gone, if it is time for that again."""
        begun = time.monotonic()
        if begun < self._next_look:
            return
        self.look_now()
        now = time.monotonic()
        self._next_look = now + max(LOOK_S, _SHARE * (now - begun))

    def look_now(self) -> None:
        """See who was forked and who has gone."""
        pids = set(all_pids())
        self._strangers &= pids
        self._refused = {pid: since for pid, since in self._refused.items() if pid in pids}
        for pid, one in list(self.living.items()):
            if not self._is_left(one) and not self._is_in_exec(one):
                del self.living[pid]
                self._tell_end(one)
        for pid in sorted(pids - self._strangers - self.living.keys()):
            self._meet(pid)

    def take_news(self) -> list[News]:
        """What has been noticed since this was asked last, in order."""
        news, self._news = self._news, []
        return news

    def any_left(self) -> bool:
        """Whether a child is left that records."""
        self.look()
        if not self.living:
            self.look_now()  # who forked it may have been gone before the next look
        return bool(self.living)

    def are_outside(self) -> bool:
        """Whether each living child, in turn, was seen outside of all trampolines: never while
        there is one that cannot be looked at."""
        if any(not is_dead(pid, pid) for pid in self.unreachable):
            return False
        return all(_is_outside(one.pid) for one in bearers(self.identity))

    def end(self, before: int | None = None) -> None:
        """Put the text of all children back, of those only that were forked before generation
        `before` of the registry if that is given."""
        for ended in end_bearers(self.identity, before):
            self._strangers.discard(ended.pid)
            one = self.living.pop(ended.pid, None)
            if ended.error is not None:
                self.unreachable[ended.pid] = _why(ended.error)
            elif one is not None:
                self._tell(DETACHED, one, thread_name(ended.pid, ended.pid))
        self._name_hidden()

    def _name_hidden(self) -> None:
        # Who hides from us (it gave up privileges, or is not dumpable) is not found by what it
        # maps: those we knew, and those whose parent we knew.
        family = {self._maker, *self.living, *self.unreachable}
        near = [pid for pid in all_pids() if pid in family or _parent_of(pid) in family]
        hidden = dict.fromkeys(near, "")
        deadline = time.monotonic() + _IN_EXEC_S
        while hidden := {pid: why for pid in hidden if (why := self._refusal(pid))}:
            if time.monotonic() > deadline:
                break
            time.sleep(_PAUSE_S)
        self.unreachable |= hidden

    def _refusal(self, pid: int) -> str:
        try:
            bearer(pid, self.identity)
        except TargetGone:
            return ""
        except (FentryError, OSError) as error:
            return _why(error)
        return ""

    def _meet(self, pid: int) -> None:
        try:
            one = bearer(pid, self.identity)
        except TargetGone:
            return
        except (FentryError, OSError) as error:
            self._meet_refused(pid, error)
            return
        if one is None:
            self._strangers.add(pid)
            return
        self.living[pid] = one
        self.count += 1
        self._parents[pid] = _parent_of(pid)
        self._tell(FORK, one, thread_name(pid, pid))

    def _meet_refused(self, pid: int, error: FentryError | OSError) -> None:
        since = self._refused.setdefault(pid, time.monotonic())
        if time.monotonic() - since < _IN_EXEC_S:
            return
        self._strangers.add(pid)
        if _parent_of(pid) in {self._maker, *self.living, *self.unreachable}:
            self.unreachable[pid] = _why(error)

    def _is_left(self, one: Bearer) -> bool:
        try:
            now = bearer(one.pid, self.identity)
        except TargetGone:
            return False
        except (FentryError, OSError) as error:
            self._meet_refused(one.pid, error)
            return one.pid not in self._strangers
        return now is not None and now.start_time == one.start_time

    def _is_in_exec(self, one: Bearer) -> bool:
        # Its memory is new already, and what it executes is not yet to be read: for a moment.
        try:
            stat = read_stat(one.pid)
            if stat.start_time != one.start_time or stat.is_dead or has_command(one.pid):
                return False
        except (TargetGone, PermissionError):
            return False
        since = self._refused.setdefault(one.pid, time.monotonic())
        return time.monotonic() - since < _IN_EXEC_S

    def _tell_end(self, one: Bearer) -> None:
        # Whether it has gone, replaced itself, or was detached by another controller: an exec
        # gives a process another auxiliary vector (its stack is elsewhere).
        try:
            stat = read_stat(one.pid)
            if stat.start_time != one.start_time or stat.is_dead:
                raise TargetGone("another process")
            kind = DETACHED if read_auxv(one.pid) == self._auxv else EXEC
            name = command_of(one.pid)
        except TargetGone:
            kind, name = EXIT, ""
        except PermissionError:
            kind, name = LOST, command_of(one.pid)
        self._tell(kind, one, name)

    def _tell(self, kind: str, one: Bearer, name: str) -> None:
        parent = self._parents.get(one.pid, 0)
        if kind != FORK:
            self._parents.pop(one.pid, None)
        self._news.append(News(kind, one.pid, parent, name, time.monotonic_ns()))


def end_bearers(
    identity: Identity,
    before: int | None = None,
    *,
    limit_s: float = END_LIMIT_S,
    undo_one: Callable[[int], Undone] | None = None,
) -> Iterator[Ended]:
    """Put back every process that got a region by fork, until a look finds none that is left;
    those only of a generation below `before`, if that is given.

    A child may fork before its turn comes: its child is found by the next look. Who could not be
    put back is tried again for `limit_s`, then told of with the error.
    """
    deadline = time.monotonic() + limit_s
    done_with: set[tuple[int, int]] = set()
    failed: dict[tuple[int, int], Ended] = {}
    while True:
        found = [
            one
            for one in bearers(identity)
            if (before is None or one.generation < before)
            and (one.pid, one.start_time) not in done_with
        ]
        left = {(one.pid, one.start_time) for one in found}
        failed = {key: ended for key, ended in failed.items() if key in left}
        if not found or (failed and len(failed) == len(found) and time.monotonic() > deadline):
            break
        for one in found:
            ended = _end(one.pid, undo_one or _undo)
            if ended.error is None:
                failed.pop((one.pid, one.start_time), None)
                if ended.done.parked_bytes:  # restored, and a thread is in its code
                    done_with.add((one.pid, one.start_time))
                yield ended
            elif not isinstance(ended.error, TargetGone):
                failed[one.pid, one.start_time] = ended
        if failed:
            time.sleep(_PAUSE_S)
    yield from failed.values()


def _end(pid: int, undo_one: Callable[[int], Undone]) -> Ended:
    try:
        return Ended(pid, undo_one(pid))
    except (FentryError, OSError) as error:
        return Ended(pid, Undone(), error)


def _is_outside(pid: int) -> bool:
    try:
        target = Target(pid)
        try:
            with target.stopped() as halt:
                region = Region.open(target.memory, halt.maps)
                return region is None or region_is_unused(halt, region)
        finally:
            target.close()
    except TargetGone:
        return True
    except (FentryError, OSError):
        return False


def _undo(pid: int) -> Undone:
    target = Target(pid)
    try:
        target.sweep()
        return undo(target, from_living=True, force=True)  # who ends the family has decided
    finally:
        target.close()


def _why(error: FentryError | OSError) -> str:
    return error.what if isinstance(error, FentryError) else error.strerror or str(error)


def _parent_of(pid: int) -> int:
    try:
        return read_stat(pid).parent_pid
    except TargetGone:
        return 0
