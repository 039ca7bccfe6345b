"""The trampolines of a target: those that are called, those that wait to be freed, and the rows of
the registry that tell of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.change import Set, Trampoline
from fentry.dispatch.code_space import CodeSpace
from fentry.dispatch.list import LIST, OpsList
from fentry.dispatch.natives import Natives
from fentry.errors import PatchError
from fentry.process.target import Halt
from fentry.region.layout import TRAMPOLINE_DTYPE, TRAMPOLINE_ROWS, State, TrampolineKind
from fentry.region.registry import Registry

_MOST_WAITING = 4  # trampolines that nobody calls and that are not yet free: their slots are, too


class Trampolines:
    """Who is in which code cannot be known but in a stop: what is not called any more waits here
    until one shows that nobody is in it.

    `live` are those of each set and arena, `twins` others of such a pair that are in use as well,
    `lists` those of the list; `gaps` is memory that no row tells of: arena, from, to.  `strange` is
    what sites call that we do not know of, or call again once somebody's breakpoint is gone.
    `left_list` are sites that do not call the list any more, though a call may be in it that has
    not looked yet: bool[n].
    """

    def __init__(
        self,
        registry: Registry,
        natives: Natives,
        code: CodeSpace,
        ops_list: OpsList,
        nr_sites: int,
    ) -> None:
        self._registry = registry
        self._natives = natives
        self._code = code
        self._list = ops_list
        self.live: dict[tuple[Set, int], Trampoline] = {}
        self.parked: list[Trampoline] = []
        self.twins: list[Trampoline] = []
        self.lists: list[Trampoline] = []
        self.gaps: list[tuple[int, int, int]] = []
        self.strange: set[int] = set()
        self.left_list = np.zeros(nr_sites, np.bool_)
        self._free_rows: list[int] = []
        self._next_row = 0

    # 1. What is there

    def adopt(self) -> dict[int, Trampoline]:
        """What the registry says there is, by address; lists are known from here on."""
        found: dict[int, Trampoline] = {}
        rows = self._registry.trampolines
        for i in np.flatnonzero(rows["state"] == State.LIVE).tolist():
            row = rows[i]
            chosen = tuple(int(one) for one in row["ops"][: int(row["nr_ops"])])
            if row["kind"] == TrampolineKind.LIST:
                chosen = LIST
            arena = self._code.arenas.index(self._code.at(int(row["address"])))
            one = Trampoline(
                chosen, arena, int(row["address"]), int(row["bytes"]), i, int(row["section"])
            )
            found[one.address] = one
            if chosen == LIST:
                self.lists.append(one)
                self.live[chosen, arena] = one
            self._next_row = i + 1
        unused = rows["state"][: self._next_row] != State.LIVE
        self._free_rows = np.flatnonzero(unused)[::-1].tolist()
        return found

    def adopt_called(self, found: dict[int, Trampoline], called: Collection[int]) -> None:
        """Of `found`, take over what is `called`, addresses; the rest waits to be freed."""
        # What nothing calls is not to be taken for that of new ops: who was here may have died.
        self.twins = [one for one in found.values() if one.set != LIST]
        self.park_unused(called)
        for one in self.twins:
            self.live.setdefault((one.set, one.arena), one)
        self.twins = [o for o in self.twins if self.live[o.set, o.arena] is not o]

    def _every(self) -> Iterator[Trampoline]:
        yield from self.live.values()
        yield from self.parked
        yield from self.twins

    @property
    def parked_bytes(self) -> int:
        """Memory of trampolines that nobody calls any more and that are not yet free."""
        return sum(one.bytes for one in self.parked)

    def needs(self, others: Collection[int]) -> bool:
        """Whether code may still run that works for other ops than `others`: ids. To be asked
        when no site calls any, as far as it is known: one under a breakpoint may again."""
        kept = [one for one in self._every() if one.set != LIST and not set(one.set) <= set(others)]
        return bool(kept) or bool(self._list.parked) or bool(self.gaps)

    def may_run(self, number: int) -> bool:
        """Whether somebody may be in code that works for the ops of this id, gone or not."""
        return (
            bool(self.gaps)
            or number in self._list.ids
            or any(number in one.set for one in self._every())
        )

    # 2. Rows

    @property
    def free_rows(self) -> int:
        """How many more the registry has room for, but for those that lists may need."""
        return len(self._free_rows) + TRAMPOLINE_ROWS - self._next_row - len(self._code.arenas)

    def take_row(self) -> int:
        """The number of a free row. Raises PatchError when there is none."""
        if self._free_rows:
            return self._free_rows.pop()
        if self._next_row == TRAMPOLINE_ROWS:
            raise PatchError(
                f"the registry has room for {TRAMPOLINE_ROWS} trampolines",
                cause="too many different sets of ops on the functions of one process",
                remedy="fewer ops, or ops with the same filters",
            )
        self._next_row += 1
        return self._next_row - 1

    def mark(self) -> tuple[list[int], int]:
        """What `rewind` brings back: the rows that are free now."""
        return list(self._free_rows), self._next_row

    def rewind(self, mark: tuple[list[int], int]) -> None:
        """Give back the rows that were taken since `mark`."""
        self._free_rows, self._next_row = mark

    def write_row(self, one: Trampoline, state: State) -> None:
        """Let the registry say of one that it is there, or is not."""
        self._registry.write_trampoline(one.row, _row(one, state))

    # 3. What goes

    def add(self, one: Trampoline) -> None:
        """One that is called from now on."""
        self.live[one.set, one.arena] = one
        if one.set == LIST:
            self.lists.append(one)

    def park_unused(self, called: Collection[int]) -> None:
        """What is not `called`, addresses, waits to be freed."""
        # Judged by what the text calls: the arenas of an adopted one may be grouped otherwise.
        called = {*called, *self.strange}
        for key, one in list(self.live.items()):
            if one.address not in called and key[0] != LIST:
                self.parked.append(self.live.pop(key))
        self.parked += [one for one in self.twins if one.address not in called]
        self.twins = [one for one in self.twins if one.address in called]

    def free(self, halt: Halt, *, few_wait: bool = False) -> None:
        """Free what nobody calls any more, as far as nobody is in it: in a change."""
        # To prove that nobody is in them all stacks are read: a few can wait for more.
        least = _MOST_WAITING if few_wait else 1
        if not (self._asks_list or self._natives.has_parked) and len(self.parked) < least:
            return
        rips = np.array(halt.rips(), np.uint64)
        self._free_list(halt, rips)
        kept: list[Trampoline] = []
        for one in self.parked:
            low, high = one.address, one.address + one.bytes
            if (
                (rips >= np.uint64(low)) & (rips < np.uint64(high))
            ).any() or self._natives.is_running(halt, one.set, [(low, high)]):
                kept.append(one)
                continue
            if one.section:
                halt.clear_rseq(low, high)
            self.write_row(one, State.FREE)
            if one.bytes:
                self._code.arenas[one.arena].give(one.address, one.bytes)
            self._free_rows.append(one.row)
        self.parked = kept
        called = {n for one in self._every() for n in one.set} | self._list.ids
        if not self.gaps:  # else bodies of older lists may be there that call them
            self._natives.sweep(halt, called, self._code)

    @property
    def _asks_list(self) -> bool:
        # Whether anything depends on who is in the list.
        return bool(self._list.parked or self.gaps or self.left_list.any())

    def _free_list(self, halt: Halt, rips: NDArray[np.uint64]) -> None:
        # A body returns into the trampoline, and that reads the table and bitmaps: all or nothing.
        spans = [(one.address, one.address + one.bytes) for one in self.lists]
        if not self._asks_list or self._list.is_walked(rips, spans):
            return
        self.left_list[:] = False
        spans += self._list.code
        running = {n for n in self._list.ids if self._natives.is_running(halt, [n], spans)}
        for piece in self._list.free(running):
            if piece.is_code:
                halt.clear_rseq(piece.address, piece.address + piece.bytes)
            self._code.give_code(piece.address, piece.bytes)
        self._free_gaps(halt, rips)

    def _free_gaps(self, halt: Halt, rips: NDArray[np.uint64]) -> None:
        # What another controller gave back, or had not come to use. All or nothing: who is in the
        # body of an old list there goes on reading its table.
        spans = [(low, high) for _, low, high in self.gaps]
        starts = np.array([low for low, _ in spans], np.uint64)
        ends = np.array([high for _, high in spans], np.uint64)
        at = np.searchsorted(starts, rips, side="right") - 1
        if (rips[at >= 0] < ends[at[at >= 0]]).any():
            return
        if self._natives.is_running(halt, self._natives.ids, spans):
            return
        if spans:
            halt.clear_rseqs(spans)
        for arena, low, high in self.gaps:
            self._code.arenas[arena].give(low, high - low)
        self.gaps = []


def _row(one: Trampoline, state: State) -> NDArray[np.void]:
    row = np.zeros((), TRAMPOLINE_DTYPE)
    row["address"], row["bytes"], row["state"] = one.address, one.bytes, state
    row["section"] = one.section
    if one.set == LIST:
        row["kind"] = TrampolineKind.LIST
        return row
    if not one.bytes:
        row["kind"] = TrampolineKind.DIRECT
    row["nr_ops"] = len(one.set)
    row["ops"][: len(one.set)] = one.set
    return row
