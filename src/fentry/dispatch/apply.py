"""From the plan to the target: the difference, prepared outside and applied in one stop.

Order inside the stop: trampolines, pads, rows of the registry, threads out of the windows, detours,
text, pads that are in use.  Removal: text, then pads, then rows (docs/design/region.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from fentry.dispatch.controllers import Outdated
from fentry.dispatch.list import LIST, Listed, OpsList, overflow, split, too_large
from fentry.dispatch.natives import Natives
from fentry.dispatch.ownership import Ownership
from fentry.dispatch.plan import Plan
from fentry.dispatch.trampolines import Trampolines
from fentry.dispatch.writes import Writes, windows
from fentry.errors import PatchError
from fentry.process.deferral import deferred_signals
from fentry.process.gather import MOST_PIECES, Evidence, Pieces
from fentry.process.target import Halt, Target
from fentry.region.layout import (
    MAX_SET,
    Kind,
    SiteFlag,
    SiteState,
    State,
)
from fentry.region.lists import ListEntry, read_list
from fentry.region.owners import Owner
from fentry.region.region import Region
from fentry.sites import pad as pads
from fentry.sites.moved import carrier_pads, moved_code
from fentry.sites.patcher import POKE_BYTES, SiteRestoreError, differ, read_mapped
from fentry.sites.site import Reason, SiteKind
from fentry.sites.table import SiteTable
from fentry.trampolines.arena import Arena
from fentry.trampolines.body import Body, CallBody, CountBody, DirectBody, Traits
from fentry.trampolines.build import build_trampoline
from fentry.trampolines.entry import section_offset
from fentry.trampolines.list import build_list, cell_offset
from fentry.x86.code import Code

UNKNOWN_SET = (-1,)  # what an adopted site calls when no live trampoline lies there

BodyOf = Callable[[int], Body]
Codes = dict[tuple[Set, int], tuple[Callable[[int], Code], int]]  # for an origin; bytes


def _nothing() -> None:
    pass


def _unknown() -> None:
    return None


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
        owner: Owner,
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
        self.unseen: list[int] = []  # rows of sites of other controllers that our table lacks
        self._lists_all = lists_all
        self._list = OpsList(traits)
        self.trampolines = Trampolines(region.registry, natives, self._code, self._list, n)
        self._covered: list[int] = []  # sites that call the list under somebody else's bytes
        self.ownership = Ownership(target, region, owner)
        self._site_rows = int(region.registry.header["site_rows"])

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
        parked = (one.set for one in self.trampolines.parked)
        return {one for chosen in (*self._sets, *parked) for one in chosen}

    @property
    def parked_bytes(self) -> int:
        """Memory of trampolines and C functions that nobody calls any more and that are not yet
        free."""
        return self.trampolines.parked_bytes + self._natives.parked_bytes

    def adopt(self) -> dict[int, NDArray[np.bool_]]:
        """Take over what the registry says of sites, trampolines and arenas.

        Returns the members of each ops: id -> bool[n].
        """
        registry = self._region.registry
        # First: who changes anything while all the rest is read makes this out of date.
        generation = int(registry.header["generation"])
        self.ownership.generation = -1 if generation % 2 else generation
        for segment in self._region.of_kind(Kind.CODE):
            self._code.at(segment.address).add(segment)
        by_address, sites = self.trampolines.adopt(), registry.sites
        self._adopt_sites(sites, by_address)
        self.trampolines.adopt_called(by_address, self._called)
        numbers = {one for chosen in self._sets for one in chosen}
        has = {n: np.array([n in chosen for chosen in self._sets]) for n in numbers}
        members = {number: flags[self._current] for number, flags in has.items()}
        self._adopt_list(members)
        spans = [(one.address, one.bytes) for one in by_address.values()]
        spans += [(low, high - low) for low, high in self._natives.spans]
        spans += [(piece.address, piece.bytes) for piece in self._list.now.pieces]
        known = UNKNOWN_SET not in self._sets  # else text calls what no row tells of
        self.trampolines.gaps = self._code.gaps(spans, sites) if known else []
        return members

    def _adopt_list(self, members: dict[int, NDArray[np.bool_]]) -> None:
        tables: dict[int, list[ListEntry]] = {}
        known = np.flatnonzero(self._text.row >= 0)
        calling = np.zeros(len(self.table), np.bool_)
        for one in self.trampolines.lists:
            table = self._target.memory.read_u64(one.section)
            tables.setdefault(table, read_list(self._target.memory, table))
            sites = np.flatnonzero(
                (self._text.mode != NONE) & (self._text.call == np.uint64(one.address))
            )
            for entry in tables[table]:
                chosen = members.setdefault(entry.id, np.zeros(len(self.table), np.bool_))
                chosen[sites] |= entry.wants(self._text.row[sites])
                self.trampolines.left_list[known] |= entry.wants(self._text.row[known])
            calling[sites] = True
        self.trampolines.left_list &= ~calling
        self._list.adopt(tables)

    def _adopt_sites(self, rows: NDArray[np.void], trampolines: dict[int, Trampoline]) -> None:
        memory = self._target.memory
        sites = self.table.rows_of(rows["ip"].astype(np.uint64))
        stale = (sites >= 0) & ~adoption.is_of_now(memory, self._region, self.table, sites, rows)
        sites[stale] = -1
        # A detach would take their bytes for what was there before.
        self.ownership.stale = np.flatnonzero(stale & (rows["state"] != SiteState.GONE)).tolist()
        self._site_of_row = sites.tolist()
        known = sites >= 0
        # In a module that we have not seen, or see otherwise: somebody else's, who knows it.
        unseen = np.flatnonzero(~known & (rows["state"] != SiteState.GONE))
        unseen = unseen[adoption.lead_to_us(memory, self._region, rows[unseen])]
        self.unseen = [int(number) for number in unseen]
        self.trampolines.strange.update(adoption.called_by(memory, rows[unseen]))
        rows, sites = rows[known], sites[known]
        self._text.row[sites] = np.flatnonzero(known)
        adoption.believe(self.table, sites, rows)
        self._text.pad[sites] = rows["pad"]
        self._text.modified[sites] = rows["flags"] & SiteFlag.MODIFIED != 0
        self._laid[sites] = rows["pad"] != 0
        short = sites[(rows["pad"] != 0) & (rows["hole"] != 0)]
        self._laid[short] = detours.leads_to_pad(memory, self.table, short, self._text.pad[short])
        self._keys.update(zip(rows["key"].tolist(), sites.tolist(), strict=True))
        found, mapped = read_mapped(memory, self.table.patch[sites])
        changed = mapped & self._is_changed(sites, found)
        lists = {one.address for one in self.trampolines.lists}
        for site, text in zip(sites[changed].tolist(), found[changed], strict=True):
            called = adoption.take_call(memory, self.table, self._text, site, text.tobytes())
            if called is None:
                calls = int(rows["call"][np.flatnonzero(sites == site)[0]])
                self.trampolines.strange.add(calls)
                if calls in lists:
                    self._covered.append(site)
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
        relied_on: Callable[[], Pieces | None] = _unknown,
        before: Callable[[], None] = _nothing,
        after: Callable[[], None] = _nothing,
        undo: Callable[[], None] = _nothing,
        bounded: bool = True,
    ) -> int:
        """Bring the target to `plan`; how many sites changed.

        These are called inside the stop: `verify` first of all, to raise when the plan is out of
        date, unless all memory is the same that `relied_on`, asked before it, tells of; `before`
        and `after` to write what else the registry is to say, of ops that come before the changes,
        of ops that go after them; `undo` takes what `before` wrote back when the changes fail.

        All or nothing: raises PatchError, LockError, TargetGone, StopTimeout with every site as it
        was; Outdated when another controller has changed something since.
        """
        self.ownership.check()
        plan, listed = self._with_list(plan)
        indices = np.array([self._index(chosen) for chosen in plan.sets], np.int32)
        wanted = indices[plan.wanted]
        sites = np.flatnonzero(wanted != self._current)
        if not len(sites) and listed is None:
            with self.ownership.owned(bounded=bounded) as halt, self.ownership.changing():
                self.trampolines.free(halt, few_wait=True)
                before()
                after()
            return 0
        marks, laid = [arena.mark() for arena in self._arenas], self._text.pad.copy()
        rows = self.trampolines.mark()
        change, writing = None, False
        try:
            change = self._prepare(sites, wanted[sites], body_of, listed)
            writes = Writes(self.table, self._text, change)
            evidence = self._evidence(writes.pieces(), relied_on())
            with self.ownership.owned(bounded=bounded, evidence=evidence) as halt:
                halt.stop.refuse_if_late()
                if not evidence.held:
                    verify()
                writing = True
                with self.ownership.changing():
                    self.trampolines.free(halt, few_wait=True)
                    before()
                    try:
                        self._write(halt, change, writes, verified=evidence.held)
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
                self.trampolines.rewind(rows)
                for arena, mark in zip(self._arenas, marks, strict=True):
                    arena.rewind(mark)
            raise
        self._commit(change, wanted)
        return len(sites)

    def _evidence(self, text: Pieces | None, others: Pieces | None) -> Evidence:
        # What a small change relies on, to be compared at once. One that never holds for others:
        # they look for themselves.
        if text is None or others is None or len(text) + len(others) >= MOST_PIECES:
            return Evidence(self._target.pid, None)
        address, head = self._region.registry.head
        self.ownership.check(head=head)
        return Evidence(self._target.pid, [(address, head), *text, *others])

    def _retract(self, change: Change) -> None:
        # What failed may have been told of: nobody is to take it over.
        for built, _ in change.built:
            if built.set == LIST:
                self.trampolines.write_row(built, State.FREE)

    def _abandon(self, change: Change) -> None:
        self.trampolines.parked += [built for built, _ in change.built if built.set != LIST]
        if change.list is not None:
            self._list.abandon(change.list)

    def _with_list(self, plan: Plan) -> tuple[Plan, Listed | None]:
        # What goes on the list: nothing, as a rule; then no plan is changed.
        on_list = too_large(plan)
        direct = np.array([self._natives.direct(chosen) for chosen in plan.sets], np.bool_)
        if not self._lists_all and len(plan.sets) * len(self._arenas) > self.trampolines.free_rows:
            on_list |= self._overflow(plan)
        if (on_list & direct).any():
            raise PatchError(
                "a function with DIRECT ops cannot call the list of ops",
                cause=f"more than {MAX_SET} ops on a function, or no row left",
                remedy="unregister some of them",
            )
        if self._lists_all:
            on_list |= ~direct & [bool(chosen) for chosen in plan.sets]
        if not on_list.any() and self._list.is_empty:
            return plan, None
        self._refuse_covered()
        if self.unseen:
            raise PatchError(
                "the list of ops cannot be changed",
                cause=f"{len(self.unseen)} functions that are not seen here may be on it",
                remedy="detach and attach again",
            )
        left = self.trampolines.left_list | (self._current == self._index(LIST))
        return split(plan, on_list, np.flatnonzero(left), lambda one: self._natives.direct((one,)))

    def _refuse_covered(self) -> None:
        # The bitmaps of the next version would not have them, when the bytes go.
        if not self._covered:
            return
        rows = self._region.registry.sites[self._text.row[self._covered]]
        if adoption.lead_to_us(self._target.memory, self._region, rows).any():
            raise Outdated("another tool took its bytes away", remedy="try again")
        raise PatchError(
            "the list of ops cannot be changed",
            cause=f"another tool's bytes cover {len(self._covered)} functions that call it",
            remedy="fentry doctor lists who else is there",
        )

    def _overflow(self, plan: Plan) -> NDArray[np.bool_]:
        def known(chosen: Set, arena: int) -> bool:
            return (chosen, arena) in self.trampolines.live or len(chosen) > MAX_SET

        found = overflow(plan, self._arena, known, self.trampolines.free_rows)
        if found.any() and self.trampolines.parked:
            with self.ownership.owned() as halt, self.ownership.changing():
                self.trampolines.free(halt)
            found = overflow(plan, self._arena, known, self.trampolines.free_rows)
        return found

    def _index(self, chosen: Set) -> int:
        if chosen not in self._set_index:
            self._set_index[chosen] = len(self._sets)
            self._sets.append(chosen)
        return self._set_index[chosen]

    def free_parked(self, halt: Halt) -> None:
        """Free what nobody calls any more, as far as nobody is in it."""
        with self.ownership.changing():
            self.trampolines.free(halt)

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
        needs_pad |= again | self.table.part[sites]  # a call would write below the stack pointer
        for i, key in enumerate(direct_keys.tolist()):
            taken = self._keys.get(key)
            if taken is not None and taken != sites[i]:
                needs_pad[i] = True  # the low half of an address names one site only
        mode = np.where(wanted == 0, NONE, np.where(needs_pad, PADDED, DIRECT)).astype(np.uint8)
        change = Change(
            sites, mode, np.zeros(len(sites), np.uint64), np.zeros(len(sites), np.uint32)
        )
        modifying = [i for i in set(wanted.tolist()) if self._natives.modifies(self._sets[i])]
        change.modified = self._text.modified[sites] | np.isin(wanted, modifying)
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
            if i and (self._sets[i], arena) not in self.trampolines.live
        }
        missing: Codes = {}
        for chosen, arena in sorted(pairs):
            build = self._builder(chosen, arena, body_of)
            missing[chosen, arena] = build, len(build(0x10000).data)
        return missing

    def _builder(self, chosen: Set, arena: int, body_of: BodyOf) -> Callable[[int], Code]:
        if chosen == LIST:
            return build_list
        bodies = [body_of(one) for one in chosen]
        if len(bodies) == 1 and isinstance(bodies[0], DirectBody):
            direct = Code(bodies[0].target, b"")
            if any(s.address <= direct.origin < s.end for s in self._arenas[arena].segments):
                return lambda origin: direct  # within reach: the user's code itself
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
            with self.ownership.owned() as halt:
                self._code.make_room(halt, need)

    def _place(
        self,
        change: Change,
        wanted: NDArray[np.int32],
        codes: Codes,
    ) -> None:
        fresh: dict[tuple[Set, int], Trampoline] = {}
        for (chosen, arena), (build, size) in codes.items():
            code = build(self._arenas[arena].take(size) if size else 0)
            address = code.origin
            section = cell_offset(code) if chosen == LIST else section_offset(code)
            row = self.trampolines.take_row()
            built = Trampoline(
                chosen, arena, address, len(code.data), row, address + section if section else 0
            )
            change.built.append((built, code))
            fresh[chosen, arena] = built
        for index in set(wanted.tolist()) - {0}:
            for arena in range(len(self._arenas)):
                key = (self._sets[index], arena)
                found = fresh.get(key) or self.trampolines.live.get(key)
                if found is not None:
                    at = (wanted == index) & (self._arena[change.sites] == arena)
                    change.call[at] = found.address
                    change.trampoline[at] = found.row

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
                self.table.part[sites],
            )
            change.fresh_pads.append((at, code))

    # 4. Inside the stop

    def _write(self, halt: Halt, change: Change, writes: Writes, *, verified: bool) -> None:
        memory, registry = self._target.memory, self._region.registry
        gone = change.gone if verified else writes.gone(memory)
        if len(gone):  # seldom: then everything is made once more
            change.gone = change.sites[gone]
            change.mode[gone] = NONE
            was = self._text.mode[change.gone]
            self._text.mode[change.gone] = NONE
            writes = Writes(self.table, self._text, change)
            self._text.mode[change.gone] = was  # until all is written
        if not verified:
            writes.verify_windows(memory)
        self._code.note_used()
        for built, code in change.built:
            if code.data:
                memory.write(built.address, code.data)
            self.trampolines.write_row(built, State.LIVE)
        for address, laid in change.fresh_pads:
            memory.write(address, laid.tobytes())
        for address, piece in change.list.writes if change.list else ():
            memory.write(address, piece)
        self._laid[change.sites] |= self._text.pad[change.sites] != 0
        writes.write_rows(registry, adding=True)
        writes.write_pad_calls(memory, idle=True)
        writes.leave_windows(halt)
        self._fill_detours(halt, change)
        # A list must know its sites before they call it; those that leave it are known until
        # they do not call it any more, by whoever goes on where we die.
        joined = self._joins_list(change)
        if joined:
            self._point_to_list(change)
        try:
            writes.write_text(memory, verified=verified)
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
        every = [*self.trampolines.lists, *fresh]
        if not every:
            return {}
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
            chosen, table = [*self.trampolines.lists, *fresh], change.list.version.table
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

    def lost(self, members: Callable[[], NDArray[np.bool_]]) -> list[int]:
        """Numbers of modules that were unloaded, perhaps loaded again where they were: their
        first patched site, of `members`, does not hold what was written there."""
        if self._first_patched is None:
            patched = np.flatnonzero((self._text.mode != NONE) & members())
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

    # 5. After it

    def _commit(self, change: Change, wanted: NDArray[np.int32]) -> None:
        sites = change.sites
        self._first_patched = None
        adding = change.mode != NONE
        self.trampolines.left_list[sites] |= self._current[sites] == self._index(LIST)
        self.trampolines.left_list &= wanted != self._index(LIST)
        keys = keys_of(self.table, self._text, sites[adding], change.mode[adding])
        self._keys.update(zip(keys.tolist(), sites[adding].tolist(), strict=True))
        self._text.mode[sites] = change.mode
        self._text.call[sites] = change.call
        self._text.modified[sites] = change.modified
        self._current[sites] = wanted[sites]
        for built, _ in change.built:
            self.trampolines.add(built)
        if change.list is not None:
            self._list.commit(change.list)
        self._current[change.gone] = 0
        self.table.kind[change.gone] = SiteKind.REFUSED
        self.table.reason[change.gone] = Reason.FOREIGN
        self.trampolines.park_unused(self._called)

    @property
    def _called(self) -> set[int]:
        # What the text calls now: addresses.
        return set(self._text.call[self._text.mode != NONE].tolist())
