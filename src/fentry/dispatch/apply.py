"""From the plan to the target: the difference, prepared outside and applied in one stop.

Order inside the stop: trampolines, pads, rows of the registry, threads out of the windows, detours,
text, pads that are in use.  Removal: text, then pads, then rows (docs/design/region.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch import adoption, detours
from fentry.dispatch.change import (
    DIRECT,
    NONE,
    PADDED,
    Change,
    Rows,
    Set,
    Text,
    Trampoline,
    keys_of,
)
from fentry.dispatch.code_space import CodeSpace
from fentry.dispatch.list import LIST, Listed, OpsList, overflow, split, too_large
from fentry.dispatch.natives import Natives
from fentry.dispatch.plan import Plan
from fentry.dispatch.writes import Writes, windows
from fentry.errors import LockError, PatchError
from fentry.process.deferral import deferred_signals
from fentry.process.target import Halt, Target
from fentry.region.layout import (
    MAX_SET,
    TRAMPOLINE_DTYPE,
    TRAMPOLINE_ROWS,
    Kind,
    SiteState,
    State,
    TrampolineKind,
)
from fentry.region.lists import ListEntry, read_list
from fentry.region.region import Region
from fentry.sites import pad as pads
from fentry.sites.moved import carrier_pads, moved_code
from fentry.sites.patcher import POKE_BYTES, SiteRestoreError, differ, read_mapped
from fentry.sites.site import Reason, SiteKind
from fentry.sites.table import SiteTable
from fentry.trampolines.arena import Arena
from fentry.trampolines.body import Body, CallBody, CountBody, Traits
from fentry.trampolines.build import build_trampoline
from fentry.trampolines.entry import section_offset
from fentry.trampolines.list import build_list, cell_offset
from fentry.x86.code import Code

UNKNOWN_SET = (-1,)  # what an adopted site calls when no live trampoline lies there

BodyOf = Callable[[int], Body]
Codes = dict[tuple[Set, int], tuple[Callable[[int], Code], int]]  # for an origin; bytes


def _nothing() -> None:
    pass


class Dispatcher:
    """Holds what the text of the target is now; `apply` brings it to a plan."""

    def __init__(
        self,
        target: Target,
        region: Region,
        table: SiteTable,
        traits: Traits,
        natives: Natives,
        arenas: Sequence[Arena],
        arena_of_module: Sequence[int],
        *,
        lists_all: bool = False,
    ) -> None:
        n = len(table)
        self._target = target
        self._region = region
        self.table = table
        self._traits = traits
        self._natives = natives
        self._code = CodeSpace(target.memory, region, arenas)
        self._arenas = self._code.arenas
        lookup = np.asarray(list(arena_of_module) or [0], np.int32)
        self._arena = lookup[table.module] if n else np.empty(0, np.int32)
        self._sets: list[Set] = [()]
        self._set_index: dict[Set, int] = {(): 0}
        self._current = np.zeros(n, np.int32)
        self._text = Text.untouched(n)
        self._laid = np.zeros(n, np.bool_)
        self._site_of_row: list[int] = []
        self._keys: dict[int, int] = {}
        self._first_patched: Rows | None = None  # a site of each module, while it is known
        self._live: dict[tuple[Set, int], Trampoline] = {}
        self._parked: list[Trampoline] = []
        self._twins: list[Trampoline] = []  # in use, of a set that has another one in its arena
        self._strange: set[int] = set()  # what sites call again once somebody's breakpoint is gone
        self._lists_all = lists_all
        self._list = OpsList(traits)
        self._lists: list[Trampoline] = []
        self._free_rows: list[int] = []
        self._next_row = 0
        header = region.registry.header
        self.generation = int(header["generation"])
        self._site_rows = int(header["site_rows"])

    # 1. What others ask

    def keys(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Every site key ever given out and the ip it stands for."""
        pairs = sorted(self._keys.items())
        keys = np.array([key for key, _ in pairs], np.uint32)
        ips = self.table.ip[[site for _, site in pairs]] if pairs else np.empty(0, np.uint64)
        return keys, ips

    @property
    def code(self) -> CodeSpace:
        """Where executable memory comes from."""
        return self._code

    @property
    def rows(self) -> Rows:
        """The row of each site in the registry, -1 where it has none: int64[n]."""
        return self._text.row

    @property
    def patched(self) -> NDArray[np.bool_]:
        """Which sites call something now."""
        result: NDArray[np.bool_] = self._text.mode != NONE
        return result

    def hole_is_foreign(self, sites: Rows) -> NDArray[np.bool_]:
        """Which sites would need a hole in which something else is by now: bool[n]."""
        wrong = np.zeros(len(sites), np.bool_)
        short = np.flatnonzero(self.table.hole[sites] != 0)
        chosen, memory = sites[short], self._target.memory
        wrong[short] = detours.taken_by_others(memory, self.table, chosen, self._text.pad[chosen])
        return wrong

    @property
    def known_ids(self) -> set[int]:
        """Ids of ops that any set holds or held."""
        parked = (one.set for one in self._parked)
        return {one for chosen in (*self._sets, *parked) for one in chosen}

    @property
    def parked_bytes(self) -> int:
        """Memory of trampolines and C functions that nobody calls any more and that are not yet
        free."""
        return sum(one.bytes for one in self._parked) + self._natives.parked_bytes

    def adopt(self) -> dict[int, NDArray[np.bool_]]:
        """Take over what the registry says of sites, trampolines and arenas.

        Returns the members of each ops: id -> bool[n].
        """
        registry = self._region.registry
        for segment in self._region.of_kind(Kind.CODE):
            self._code.at(segment.address).add(segment)
        by_address: dict[int, Trampoline] = {}
        for i, row in enumerate(registry.trampolines):
            if row["state"] != State.LIVE:
                continue
            chosen = tuple(int(one) for one in row["ops"][: int(row["nr_ops"])])
            if row["kind"] == TrampolineKind.LIST:
                chosen = LIST
            arena = self._arenas.index(self._code.at(int(row["address"])))
            one = Trampoline(
                chosen, arena, int(row["address"]), int(row["bytes"]), i, int(row["section"])
            )
            by_address[one.address] = one
            if chosen == LIST:
                self._lists.append(one)
                self._live[chosen, arena] = one
            self._next_row = i + 1
        self._adopt_sites(registry.sites, by_address)
        # What nothing calls is not to be taken for that of new ops: who was here may have died.
        self._twins = [one for one in by_address.values() if one.set != LIST]
        self._park_unused()
        for one in self._twins:
            self._live.setdefault((one.set, one.arena), one)
        self._twins = [o for o in self._twins if self._live[o.set, o.arena] is not o]
        self.generation = int(registry.header["generation"])
        numbers = {one for chosen in self._sets for one in chosen}
        has = {n: np.array([n in chosen for chosen in self._sets]) for n in numbers}
        members = {number: flags[self._current] for number, flags in has.items()}
        self._adopt_list(members)
        return members

    def _adopt_list(self, members: dict[int, NDArray[np.bool_]]) -> None:
        tables: dict[int, list[ListEntry]] = {}
        for one in self._lists:
            table = self._target.memory.read_u64(one.section)
            tables.setdefault(table, read_list(self._target.memory, table))
            sites = np.flatnonzero(
                (self._text.mode != NONE) & (self._text.call == np.uint64(one.address))
            )
            for entry in tables[table]:
                chosen = members.setdefault(entry.id, np.zeros(len(self.table), np.bool_))
                chosen[sites] |= entry.wants(self._text.row[sites])
        self._list.adopt(tables)

    def _adopt_sites(self, rows: NDArray[np.void], trampolines: dict[int, Trampoline]) -> None:
        memory = self._target.memory
        sites = self.table.rows_of(rows["ip"].astype(np.uint64))
        stale = (sites >= 0) & ~adoption.is_of_now(memory, self._region, self.table, sites, rows)
        sites[stale] = -1
        for number in np.flatnonzero(stale).tolist():
            # A detach would take its bytes for what was there before.
            gone = rows[number : number + 1].copy()
            gone["state"] = SiteState.GONE
            self._region.registry.write_sites(number, gone)
        self._site_of_row = sites.tolist()
        known = sites >= 0
        rows, sites = rows[known], sites[known]
        self._text.row[sites] = np.flatnonzero(known)
        adoption.believe(self.table, sites, rows)
        self._text.pad[sites] = rows["pad"]
        self._laid[sites] = rows["pad"] != 0
        short = sites[(rows["pad"] != 0) & (rows["hole"] != 0)]
        self._laid[short] = detours.leads_to_pad(memory, self.table, short, self._text.pad[short])
        self._keys.update(zip(rows["key"].tolist(), sites.tolist(), strict=True))
        found, mapped = read_mapped(memory, self.table.patch[sites])
        changed = mapped & self._is_changed(sites, found)
        for site, text in zip(sites[changed].tolist(), found[changed], strict=True):
            called = adoption.take_call(memory, self.table, self._text, site, text.tobytes())
            if called is None:
                self._strange.add(int(rows["call"][np.flatnonzero(sites == site)[0]]))
            else:
                one = trampolines.get(called)
                self._current[site] = self._index(one.set if one else UNKNOWN_SET)

    # 2. The transaction

    @deferred_signals()
    def apply(
        self,
        plan: Plan,
        body_of: BodyOf,
        *,
        verify: Callable[[], None] = _nothing,
        before: Callable[[], None] = _nothing,
        after: Callable[[], None] = _nothing,
        undo: Callable[[], None] = _nothing,
    ) -> int:
        """Bring the target to `plan`; how many sites changed.

        All four are called inside the stop: `verify` first of all, to raise when the plan is out
        of date; `before` and `after` to write what else the registry is to say, of ops that come
        before the changes, of ops that go after them; `undo` takes what `before` wrote back when
        the changes fail.  All or nothing: raises PatchError, LockError, TargetGone, StopTimeout
        with every site as it was.
        """
        self.check_owner()
        plan, listed = self._with_list(plan)
        indices = np.array([self._index(chosen) for chosen in plan.sets], np.int32)
        wanted = indices[plan.wanted]
        sites = np.flatnonzero(wanted != self._current)
        if not len(sites) and listed is None:
            with self.owned() as halt:
                self._free_parked(halt)
                before()
                after()
            return 0
        marks, laid = [arena.mark() for arena in self._arenas], self._text.pad.copy()
        rows = list(self._free_rows), self._next_row
        change, writing = None, False
        try:
            change = self._prepare(sites, wanted[sites], body_of, listed)
            writes = Writes(self.table, self._text, change)
            with self.owned() as halt:
                halt.stop.refuse_if_late()
                verify()
                writing = True
                self._free_parked(halt)
                before()
                try:
                    self._write(halt, change, writes)
                except BaseException:
                    self._retract(change)
                    undo()
                    raise
                after()
        except BaseException as error:
            if writing and change is not None:  # threads may be in its pads: nothing is reused
                if not isinstance(error, SiteRestoreError):  # else text may call it for ever
                    self._abandon(change)
                self._text.pad[~self._laid] = 0
            else:
                self._text.pad = laid
                self._free_rows, self._next_row = rows
                for arena, mark in zip(self._arenas, marks, strict=True):
                    arena.rewind(mark)
            raise
        self._commit(change, wanted)
        return len(sites)

    def _retract(self, change: Change) -> None:
        # What failed may have been told of: nobody is to take it over.
        for built, _ in change.built:
            if built.set == LIST:
                row = _trampoline_row(built, State.FREE)
                self._region.registry.write_trampoline(built.row, row)

    def _abandon(self, change: Change) -> None:
        self._parked += [built for built, _ in change.built if built.set != LIST]
        if change.list is not None:
            self._list.abandon(change.list)

    def _with_list(self, plan: Plan) -> tuple[Plan, Listed | None]:
        # What goes on the list: nothing, as a rule; then no plan is changed.
        on_list = too_large(plan)
        if self._lists_all:
            on_list[:] = [bool(chosen) for chosen in plan.sets]
        elif len(plan.sets) * len(self._arenas) > self._free_row_count():
            on_list |= self._overflow(plan)
        if not on_list.any() and self._list.is_empty:
            return plan, None
        return split(plan, on_list)

    def _overflow(self, plan: Plan) -> NDArray[np.bool_]:
        def known(chosen: Set, arena: int) -> bool:
            return (chosen, arena) in self._live or len(chosen) > MAX_SET

        found = overflow(plan, self._arena, known, self._free_row_count())
        if found.any() and self._parked:
            with self.owned() as halt:
                self._free_parked(halt)
            found = overflow(plan, self._arena, known, self._free_row_count())
        return found

    def _free_row_count(self) -> int:
        # But for those that list trampolines may need.
        return len(self._free_rows) + TRAMPOLINE_ROWS - self._next_row - len(self._arenas)

    def _index(self, chosen: Set) -> int:
        if chosen not in self._set_index:
            self._set_index[chosen] = len(self._sets)
            self._sets.append(chosen)
        return self._set_index[chosen]

    @contextmanager
    def owned(self) -> Iterator[Halt]:
        """The target stopped, and the region still ours: only here may the target be written.

        Raises LockError when another controller changed or removed the region.
        """
        with self._target.stopped() as halt:
            self.check_owner()
            yield halt

    def check_owner(self) -> None:
        """Raise LockError when the region is not ours any more."""
        try:
            header = self._region.registry.header
        except PatchError as error:
            raise LockError(
                f"process {self._target.pid} is no longer traced",
                cause="another controller detached it",
            ) from error
        if header["owner_pid"] != os.getpid() or header["generation"] != self.generation:
            owner = int(header["owner_pid"])
            raise LockError(
                f"process {self._target.pid} is no longer ours",
                cause=f"process {owner} took it over"
                if owner
                else "another controller detached it",
            )

    # 3. Outside the stop

    def _prepare(
        self, sites: Rows, wanted: NDArray[np.int32], body_of: BodyOf, listed: Listed | None
    ) -> Change:
        indexed = {i for i in set(wanted.tolist()) if self._needs_index(i, body_of)}
        needs_pad = (self.table.kind[sites] != SiteKind.NOP) | np.isin(wanted, list(indexed))
        direct_keys = (self.table.patch[sites] + np.uint64(POKE_BYTES)) & np.uint64(0xFFFFFFFF)
        _, first = np.unique(direct_keys, return_index=True)
        again = np.ones(len(sites), np.bool_)
        again[first] = False
        needs_pad |= again
        for i, key in enumerate(direct_keys.tolist()):
            taken = self._keys.get(key)
            if taken is not None and taken != sites[i]:
                needs_pad[i] = True  # the low half of an address names one site only
        mode = np.where(wanted == 0, NONE, np.where(needs_pad, PADDED, DIRECT)).astype(np.uint8)
        change = Change(
            sites, mode, np.zeros(len(sites), np.uint64), np.zeros(len(sites), np.uint32)
        )
        change.fresh_rows = np.flatnonzero((wanted != 0) & (self._text.row[sites] < 0))
        fresh = np.flatnonzero((mode == PADDED) & (self._text.pad[sites] == 0))
        codes = self._missing(sites, wanted, body_of)
        self._assign_rows(change)
        if listed is not None:
            rows = len(self._site_of_row)
            change.list = self._list.prepare(listed, body_of, self._text.row, rows)
        self._make_room(sites, fresh, codes, change.list.need_bytes if change.list else 0)
        self._place(change, wanted, codes)
        if change.list is not None:
            self._list.place(change.list, self._arenas[0])
        self._lay_pads(change, fresh)
        change.has_fresh_pad = np.zeros(len(sites), np.bool_)
        change.has_fresh_pad[fresh] = True
        return change

    def _needs_index(self, index: int, body_of: BodyOf) -> bool:
        # Whether the code needs the index of the site, which pads carry.
        return self._sets[index] == LIST or any(
            isinstance(body_of(one), CountBody | CallBody) for one in self._sets[index]
        )

    def _missing(self, sites: Rows, wanted: NDArray[np.int32], body_of: BodyOf) -> Codes:
        pairs = {
            (self._sets[i], arena)
            for i, arena in set(zip(wanted.tolist(), self._arena[sites].tolist(), strict=True))
            if i and (self._sets[i], arena) not in self._live
        }
        missing: Codes = {}
        for chosen, arena in sorted(pairs):
            build = self._builder(chosen, body_of)
            missing[chosen, arena] = build, len(build(0x10000).data)
        return missing

    def _builder(self, chosen: Set, body_of: BodyOf) -> Callable[[int], Code]:
        if chosen == LIST:
            return build_list
        bodies = [body_of(one) for one in chosen]
        return lambda origin: build_trampoline(bodies, self._traits, origin)

    def _make_room(
        self,
        sites: Rows,
        fresh: Rows,
        codes: Codes,
        list_bytes: int,
    ) -> None:
        need = {i: 0 for i in range(len(self._arenas))}
        if list_bytes:
            need[0] += list_bytes
        for i, count in zip(*np.unique(self._arena[sites[fresh]], return_counts=True), strict=True):
            need[int(i)] += int(count) * pads.PAD_BYTES
        carried = sites[fresh][self.table.carrier[sites[fresh]] != 0]
        for i, count in zip(*np.unique(self._arena[carried], return_counts=True), strict=True):
            need[int(i)] += int(count) * pads.PAD_BYTES
        for (_, arena), (_, size) in codes.items():
            need[arena] += -(-size // pads.PAD_BYTES) * pads.PAD_BYTES
        if self._code.is_short(need):
            with self.owned() as halt:
                self._code.make_room(halt, need)

    def _place(
        self,
        change: Change,
        wanted: NDArray[np.int32],
        codes: Codes,
    ) -> None:
        fresh: dict[tuple[Set, int], Trampoline] = {}
        for (chosen, arena), (build, size) in codes.items():
            address = self._arenas[arena].take(size)
            code = build(address)
            section = cell_offset(code) if chosen == LIST else section_offset(code)
            row = self._take_row()
            built = Trampoline(
                chosen, arena, address, len(code.data), row, address + section if section else 0
            )
            change.built.append((built, code))
            fresh[chosen, arena] = built
        for index in set(wanted.tolist()) - {0}:
            for arena in range(len(self._arenas)):
                key = (self._sets[index], arena)
                found = fresh.get(key) or self._live.get(key)
                if found is not None:
                    at = (wanted == index) & (self._arena[change.sites] == arena)
                    change.call[at] = found.address
                    change.trampoline[at] = found.row

    def _take_row(self) -> int:
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

    def _assign_rows(self, change: Change) -> None:
        sites = change.sites[change.fresh_rows]
        first = len(self._site_of_row)
        if first + len(sites) > self._site_rows:
            raise PatchError(
                f"the registry has room for {self._site_rows} sites, "
                f"{first + len(sites)} are wanted",
                cause="modules were loaded after the attach",
                remedy="detach and attach again",
            )
        self._text.row[sites] = np.arange(first, first + len(sites))
        self._site_of_row += sites.tolist()

    def _lay_pads(self, change: Change, fresh: Rows) -> None:
        # Fresh pads lie in one piece in each arena.
        for arena in np.unique(self._arena[change.sites[fresh]]).tolist():
            own = fresh[self._arena[change.sites[fresh]] == arena]
            sites = change.sites[own]
            carried = self.table.carrier[sites] != 0  # their carrier's pad follows their own
            slots = np.cumsum(1 + carried) - (1 + carried)
            total = len(own) + int(carried.sum())
            at = self._arenas[arena].take(total * pads.PAD_BYTES)
            addresses = np.uint64(at) + slots.astype(np.uint64) * np.uint64(pads.PAD_BYTES)
            self._text.pad[sites] = addresses
            prologue = self.table.kind[sites] != SiteKind.NOP
            moved, moved_bytes = moved_code(self.table, sites, addresses)
            backs = self.table.patch[sites] + np.where(
                prologue, self.table.window[sites], POKE_BYTES
            ).astype(np.uint64)
            code = np.empty((total, pads.PAD_BYTES), np.uint8)
            code[slots[carried] + 1] = carrier_pads(
                self.table, sites[carried], addresses[carried] + np.uint64(pads.PAD_BYTES)
            )
            code[slots] = pads.build_pads(
                addresses,
                self._text.row[sites].astype(np.uint32),
                change.call[own],
                moved,
                moved_bytes,
                backs,
            )
            change.fresh_pads.append((at, code))

    # 4. Inside the stop

    def _write(self, halt: Halt, change: Change, writes: Writes) -> None:
        memory, registry = self._target.memory, self._region.registry
        gone = writes.gone(memory)
        if len(gone):  # seldom: then everything is made once more
            change.gone = change.sites[gone]
            change.mode[gone] = NONE
            was = self._text.mode[change.gone]
            self._text.mode[change.gone] = NONE
            writes = Writes(self.table, self._text, change)
            self._text.mode[change.gone] = was  # until all is written
        writes.verify_windows(memory)
        self._code.note_used()
        for built, code in change.built:
            memory.write(built.address, code.data)
            registry.write_trampoline(built.row, _trampoline_row(built, State.LIVE))
        for address, laid in change.fresh_pads:
            memory.write(address, laid.tobytes())
        for address, piece in change.list.writes if change.list else ():
            memory.write(address, piece)
        self._laid[change.sites] |= self._text.pad[change.sites] != 0
        writes.write_rows(registry, adding=True)
        writes.write_pad_calls(memory, idle=True)
        writes.leave_windows(halt)
        self._fill_detours(halt, change)
        # before the text: what fails after is undone
        self.generation = registry.begin_generation(self.generation)
        # A list must know its sites before they call it; those that leave it are known until
        # they do not call it any more, by whoever goes on where we die.
        joined = self._joins_list(change)
        if joined:
            self._point_to_list(change)
        try:
            writes.write_text(memory)
        except BaseException:
            for one, table in joined.items():  # no others when the text is put back
                memory.write_u64(one.section, table)
            raise
        writes.write_pad_calls(memory, idle=False)
        if not joined:
            self._point_to_list(change)
        writes.write_rows(registry, adding=False)

    def _joins_list(self, change: Change) -> dict[Trampoline, int]:
        # The tables that list trampolines walk now, if a site that did not call one will.
        fresh = [built for built, _ in change.built if built.set == LIST]
        every = [*self._lists, *fresh]
        addresses = np.array([one.address for one in every], np.uint64)
        calling = (self._text.mode[change.sites] != NONE) & np.isin(
            self._text.call[change.sites], addresses
        )
        if not ((change.mode != NONE) & np.isin(change.call, addresses) & ~calling).any():
            return {}
        return {one: self._target.memory.read_u64(one.section) for one in every}

    def _point_to_list(self, change: Change) -> None:
        fresh = [built for built, _ in change.built if built.set == LIST]
        if change.list is None or change.list.version is None:
            chosen, table = fresh, self._list.now.table
        else:
            chosen, table = [*self._lists, *fresh], change.list.version.table
        for one in chosen:
            self._target.memory.write_u64(one.section, table)

    def _is_changed(self, sites: Rows, found: NDArray[np.uint8]) -> NDArray[np.bool_]:
        # Whether `found` at the patch of each site is not the original, as far as it is replaced.
        original = self.table.original[sites, :POKE_BYTES]
        return differ(found, original, self.table.poke_bytes(sites))

    def differs(self, sites: Rows) -> NDArray[np.bool_]:
        """Which sites do not hold their original bytes, as far as these are moved: bool[n]."""
        same, _ = windows(self.table, sites).look(self._target.memory)
        return ~same

    def lost(self) -> list[int]:
        """Numbers of modules that were unloaded, perhaps loaded again where they were: their
        first patched site does not hold what was written there."""
        if self._first_patched is None:
            patched = np.flatnonzero(self._text.mode != NONE)
            _, first = np.unique(self.table.module[patched], return_index=True)
            self._first_patched = patched[first]
        sites = self._first_patched
        found, mapped = read_mapped(self._target.memory, self.table.patch[sites])
        gone = ~mapped | ~self._is_changed(sites, found)
        numbers: list[int] = self.table.module[sites[gone]].tolist()
        return numbers

    def _fill_detours(self, halt: Halt, change: Change) -> None:
        entering = (change.mode == PADDED) & (self._text.mode[change.sites] == NONE)
        sites = change.sites[entering]
        sites = sites[self.table.hole[sites] != 0]
        if len(sites):
            detours.fill(halt, self.table, sites, self._text.pad[sites])

    def _free_parked(self, halt: Halt) -> None:
        if not self._parked and not self._list.parked and not self._natives.has_parked:
            return
        rips = np.array(halt.rips(), np.uint64)
        self._free_list(halt, rips)
        kept: list[Trampoline] = []
        for one in self._parked:
            low, high = one.address, one.address + one.bytes
            if (
                (rips >= np.uint64(low)) & (rips < np.uint64(high))
            ).any() or self._natives.is_running(halt, one.set, (low, high)):
                kept.append(one)
                continue
            if one.section:
                halt.clear_rseq(low, high)
            self._region.registry.write_trampoline(one.row, _trampoline_row(one, State.FREE))
            self._arenas[one.arena].give(one.address, one.bytes)
            self._free_rows.append(one.row)
        self._parked = kept
        called = {n for one in (*self._live.values(), *self._twins, *kept) for n in one.set}
        self._natives.sweep(halt, called, self._code)

    def _free_list(self, halt: Halt, rips: NDArray[np.uint64]) -> None:
        # A body returns into the trampoline, and that reads the table and bitmaps: all or nothing.
        spans = [(one.address, one.address + one.bytes) for one in self._lists]
        if self._list.is_walked(rips, spans):
            return
        for piece in self._list.parked:
            if piece.is_code:
                halt.clear_rseq(piece.address, piece.address + piece.bytes)
            self._code.give_code(piece.address, piece.bytes)
        self._list.parked.clear()

    # 5. After it

    def _commit(self, change: Change, wanted: NDArray[np.int32]) -> None:
        sites = change.sites
        self._first_patched = None
        adding = change.mode != NONE
        keys = keys_of(self.table, self._text, sites[adding], change.mode[adding])
        self._keys.update(zip(keys.tolist(), sites[adding].tolist(), strict=True))
        self._text.mode[sites] = change.mode
        self._text.call[sites] = change.call
        self._current[sites] = wanted[sites]
        for built, _ in change.built:
            self._live[built.set, built.arena] = built
            if built.set == LIST:
                self._lists.append(built)
        if change.list is not None:
            self._list.commit(change.list)
        self._current[change.gone] = 0
        self.table.kind[change.gone] = SiteKind.REFUSED
        self.table.reason[change.gone] = Reason.FOREIGN
        self._park_unused()

    def _park_unused(self) -> None:
        # Judged by what the text calls: the arenas of an adopted one may be grouped otherwise.
        called = set(self._text.call[self._text.mode != NONE].tolist()) | self._strange
        for key, one in list(self._live.items()):
            if one.address not in called and key[0] != LIST:
                self._parked.append(self._live.pop(key))
        self._parked += [one for one in self._twins if one.address not in called]
        self._twins = [one for one in self._twins if one.address in called]


def _trampoline_row(one: Trampoline, state: State) -> NDArray[np.void]:
    row = np.zeros((), TRAMPOLINE_DTYPE)
    row["address"], row["bytes"], row["state"] = one.address, one.bytes, state
    row["section"] = one.section
    if one.set == LIST:
        row["kind"] = TrampolineKind.LIST
        return row
    row["nr_ops"] = len(one.set)
    row["ops"][: len(one.set)] = one.set
    return row
