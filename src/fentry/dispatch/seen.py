"""The threads that each ops sees, kept up to date as threads come, go and change their names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from fnmatch import fnmatchcase

from fentry.dispatch.threads import Lists, ThreadFilter, check, lists_of, restored, stored
from fentry.errors import TargetGone
from fentry.process.memory import Memory
from fentry.process.proc import list_tids, read_stat, read_status, thread_name
from fentry.region.layout import ThreadSetFlag
from fentry.region.threads import StoredSet, ThreadTable, stored_of

LOOK_S = 0.01
_SHARE = 10  # a look takes at most one part of so many of the time
_TICKS = os.sysconf("SC_CLK_TCK")  # of start times in /proc: proc(5)


class SeenThreads:
    """The threads of process `pid` that one ops sees; its table says so to the trampolines."""

    def __init__(self, pid: int, table: ThreadTable) -> None:
        self.table = table
        self.wanted = ThreadFilter()
        self.unmatched: set[str] = set()
        self._pid = pid
        self._lists = Lists()
        self._start_time = 0
        self._own: dict[int, int] | None = None if _is_own_namespace(pid) else {}

    def set(self, wanted: ThreadFilter) -> None:
        """See other threads from now on. Raises BadInput; then nothing changed."""
        living = frozenset(list_tids(self._pid))
        check(wanted, self._pid, living)
        self.wanted, self.unmatched = wanted, set(wanted.names)
        self._write(lists_of(wanted, living, self._named(living)))

    def take(self, found: StoredSet) -> None:
        """Go on with what a dead controller wrote."""
        if self._own is not None:
            theirs = {self._index(tid): tid for tid in list_tids(self._pid)}
            found = replace(found, bits={theirs.get(t, t): b for t, b in found.bits.items()})
        self.wanted, self._lists = restored(found)
        self.unmatched = set(self.wanted.names)
        self._start_time = found.start_time
        self.look(frozenset(list_tids(self._pid)))

    def look(self, living: AbstractSet[int]) -> None:
        """Take off who has ended, and see who has got a name since."""
        # Each is asked: a listing may be cut short when the thread it stands at dies.
        ended = {tid for tid in self._lists.every if self._is_another(tid)}
        lists = self._lists.without(ended, self._named(living))
        if self._own is not None:
            self._own = {t: o for t, o in self._own.items() if t not in ended}
        if lists != self._lists:
            self._write(lists)

    def _write(self, lists: Lists) -> None:
        self._lists = lists
        # All of them have been seen alive: whoever starts after this moment is another thread.
        self._start_time = int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)
        new = stored(self.wanted, lists, self._start_time)
        own = {index: bit for tid, bit in new.bits.items() if (index := self._index(tid))}
        self.table.write(replace(new, bits=own))

    def _named(self, living: AbstractSet[int]) -> frozenset[int]:
        globs = self.wanted.names
        if not globs:
            return frozenset()
        names = {tid: thread_name(self._pid, tid) for tid in living}
        self.unmatched -= {g for g in self.unmatched if _match(names.values(), g)}
        return frozenset(
            tid for tid, name in names.items() if any(_match([name], g) for g in globs)
        )

    def _is_another(self, tid: int) -> bool:
        try:
            return read_stat(self._pid, tid).start_time > self._start_time
        except TargetGone:
            return True

    def _index(self, tid: int) -> int:
        # The tid as the target knows it, in its own pid namespace.
        if self._own is None:
            return tid
        if tid not in self._own:
            self._own[tid] = _own_tid(self._pid, tid)
        return self._own[tid]


class ThreadFilters:
    """The thread filters of a session by the id of their ops, and tables of ops that have gone."""

    def __init__(self, pid: int) -> None:
        self._spare: list[tuple[int, ThreadTable]] = []
        self._pid = pid
        self._by_ops: dict[int, SeenThreads] = {}
        self._next_look = 0.0

    def get(self, number: int) -> SeenThreads | None:
        """What the ops `number` sees; None if it sees every thread."""
        return self._by_ops.get(number)

    def address_of(self, number: int) -> int:
        """Where the table of an ops lies in the target, 0 if it has none."""
        seen = self._by_ops.get(number)
        return seen.table.address if seen is not None else 0

    def add(self, number: int, table: ThreadTable) -> SeenThreads:
        """The ops `number` has a table from now on."""
        self._by_ops[number] = seen = SeenThreads(self._pid, table)
        return seen

    def remove(self, number: int) -> None:
        """The ops `number` has gone: its table, if it has one, is spare. What it says stays: a call
        may be on its way to it, and be seen by ops that took the place of these."""
        if seen := self._by_ops.pop(number, None):
            self.leave(number, seen.table)

    def leave(self, number: int, table: ThreadTable) -> None:
        """A table that was of the ops `number`."""
        self._spare.append((number, table))

    @property
    def has_spare(self) -> bool:
        """Whether there are tables of ops that have gone."""
        return bool(self._spare)

    def take(self, may_run: Callable[[int], bool]) -> ThreadTable | None:
        """A table for other ops, which sees nobody: one of ops whose code nobody can be in."""
        for number, table in self._spare:
            if not may_run(number):
                self._spare.remove((number, table))
                table.clear()
                return table
        return None

    def look(self) -> None:
        """Look at the threads of the process, if it is time for that again."""
        begun = time.monotonic()
        if not self._by_ops or begun < self._next_look:
            return
        living = frozenset(list_tids(self._pid))
        for seen in self._by_ops.values():
            seen.look(living)
        now = time.monotonic()
        self._next_look = now + max(LOOK_S, _SHARE * (now - begun))


def threads_text(pid: int, memory: Memory, address: int) -> str:
    """What the table at `address` says of the threads that live now, in words."""
    own = {tid: tid for tid in list_tids(pid)}
    if not _is_own_namespace(pid):
        own = {tid: index for tid in own if (index := _own_tid(pid, tid))}
    found = stored_of(memory, address, own.values())
    bits = {tid: found.bits[index] for tid, index in own.items() if index in found.bits}
    wanted, lists = restored(replace(found, bits=bits))
    left = replace(wanted, tids=lists.tids, notrace_tids=lists.notrace)
    none = found.flags & ThreadSetFlag.ONLY and not left.only
    new = "new ones" if found.flags & ThreadSetFlag.FOLLOW else "none that lives"
    return ", ".join(part for part in (new if none else "", left.text) if part)


def _match(names: Iterable[str], glob: str) -> bool:
    return any(fnmatchcase(name, glob) for name in names)


def _own_tid(pid: int, tid: int) -> int:
    # In the pid namespace of the target; 0, which is nobody's, when the thread is gone.
    try:
        return read_status(pid, tid).ns_pid
    except TargetGone:
        return 0


def _is_own_namespace(pid: int) -> bool:
    try:
        return read_status(pid).ns_pid == pid
    except TargetGone:
        return True
