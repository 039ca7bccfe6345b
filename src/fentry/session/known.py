"""What is known of a target: its functions, the linker's list, what its text calls, and which
functions each ops has among them. All of it is of one look, and is swapped together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.apply import Dispatcher
from fentry.dispatch.controllers import Others, Outdated
from fentry.dispatch.natives import Natives
from fentry.dispatch.ops import Ops
from fentry.dispatch.plan import redirected_twice
from fentry.dispatch.turns import MANNERS_S, MOST_TRIES, PAUSE_S, TURN_LIMIT_S
from fentry.errors import BadInput, FentryError, PatchError, TargetGone
from fentry.process.maps import read_maps
from fentry.process.proc import has_one_node
from fentry.process.target import CpuTraits, Halt, Target
from fentry.region import layout as region_layout
from fentry.session.place import Place
from fentry.sites.functions import Functions
from fentry.sites.pad import RETURN_OFFSET
from fentry.sites.site import Reason, SiteKind
from fentry.symbols.link_map import LinkMap
from fentry.symbols.module import Module, code_of
from fentry.trampolines.arena import Arena, neighbourhoods
from fentry.trampolines.body import Traits

MOST_LOOKS = 8  # at modules that come and go meanwhile


class ModulesChanged(PatchError):
    """The linker's list is not what it was when the functions were looked for."""


def look_at_modules(target: Target, before: Functions | None = None) -> tuple[Functions, LinkMap]:
    """The functions, and the linker's list as it was while they were looked for."""
    for _ in range(MOST_LOOKS):
        functions = Functions(target.pid, target, before)
        link_map = LinkMap(functions.modules, target.memory.read_some)
        if code_of(read_maps(target.pid)) == functions.code:
            break
    return functions, link_map


def traits_of(cpu: CpuTraits, functions: Functions) -> Traits:
    """What trampolines may rely on in a process."""
    tid_offset = cpu.tid_offset
    if tid_offset is None and cpu.fsgsbase and functions.is_static:
        tid_offset = functions.static_tid_offset()
    return Traits(
        cpu.rdpid, cpu.fsgsbase, cpu.rseq_offset, tid_offset,
        cpu.xstate_mask, cpu.xsavec, has_one_node(),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """One look at a target; rows of sites in any part of it are those of its functions."""

    functions: Functions
    link_map: LinkMap
    natives: Natives
    dispatcher: Dispatcher
    others: Others


class Known:
    """The latest view, and our `ops` by id, with members among its functions."""

    def __init__(
        self,
        place: Place,
        ops: dict[int, Ops],
        found: tuple[Functions, LinkMap],
        traits: Traits,
        *,
        lists_all: bool,
    ) -> None:
        self._place = place
        self._target = place.target
        self._region = place.region
        self._number = place.owner.number
        self._lists_all = lists_all
        self.ops = ops
        self.traits = traits
        self.leaving = 0  # the id of ops that are getting another one: their function stays
        natives = Natives(self._target, self._region, self._number)
        dispatcher = self._new_dispatcher(found[0], natives)
        others = Others(self._region, natives, self._number, {})
        self._now = View(*found, natives, dispatcher, others)
        self._unapplied = False
        self._again: set[tuple[str, int, str]] = set()  # modules loaded again where they were
        self._old_keys: dict[int, int] = {}
        self._keys_generation = -1

    @property
    def functions(self) -> Functions:
        """Of what is loaded."""
        return self._now.functions

    @property
    def link_map(self) -> LinkMap:
        """The linker's list, as it was while the functions were looked for."""
        return self._now.link_map

    @property
    def natives(self) -> Natives:
        """The C functions in the target."""
        return self._now.natives

    @property
    def dispatcher(self) -> Dispatcher:
        """What the text is now."""
        return self._now.dispatcher

    @property
    def others(self) -> Others:
        """The ops of other controllers."""
        return self._now.others

    def owned(self, *, current: bool = True, bounded: bool = True) -> AbstractContextManager[Halt]:
        """The target stopped, and what we have there still ours; see Ownership.owned."""
        return self.dispatcher.ownership.owned(current=current, bounded=bounded)

    # 1. Looking again

    def renew(self, *, thoroughly: bool = True) -> None:
        """Looks for the functions again if something was loaded or unloaded. What lies in memory is
        compared as well: another build of a library may take the place of one that was not
        patched, and its entry in the linker's list."""
        modules = self.functions.modules
        lost = {modules[number].key for number in self.dispatcher.lost(self._own_members)}
        changed = self.link_map.has_changed() or bool(lost)
        if changed or (thoroughly and self._is_other_code()):
            # Else another controller has put the text back.
            self.dispatcher.ownership.check(current=False)
            self.take_over()
            self._again |= lost

    def _is_other_code(self) -> bool:
        return code_of(read_maps(self._target.pid)) != self.functions.code

    def _own_members(self) -> NDArray[np.bool_]:
        members = np.zeros(len(self.functions.table), np.bool_)
        for ops in self.ops.values():
            members |= ops.members
        return members

    def take_over(self) -> None:
        """The ops see what is loaded now; the registry says what is patched already, as when
        another controller goes on."""
        functions, link_map = look_at_modules(self._target, self.functions)
        members = [functions.match(o.filter, o.notrace, lenient=True) for o in self.ops.values()]
        self._read(functions, link_map, members)
        functions.refuse_unloaded()
        for chosen in members:
            self.refuse_foreign(chosen)
        self.share_out_redirects()

    def read(self) -> dict[int, NDArray[np.bool_]]:
        """What the registry and the text say now of the same functions, whoever wrote it; the
        members of every ops, also of other controllers'."""
        return self._read(self.functions, self.link_map)

    def _read(
        self, functions: Functions, link_map: LinkMap, chosen: Sequence[NDArray[np.bool_]] = ()
    ) -> dict[int, NDArray[np.bool_]]:
        # `chosen` are the members that our ops have among new functions.
        deadline, tries = time.monotonic() + TURN_LIMIT_S, 0
        while True:
            generation = self._settled_generation()
            try:
                natives = Natives(self._target, self._region, self._number)
                natives.adopt()
                functions.analyse_at(self._region.registry.sites["ip"].astype(np.uint64))
                dispatcher = self._new_dispatcher(functions, natives)
                members = dispatcher.adopt()
                others = Others(self._region, natives, self._number, members)
                if (
                    dispatcher.ownership.generation == generation
                    and dispatcher.ownership.is_current()
                ):
                    break
            except FentryError:
                if self.dispatcher.ownership.check(current=False) == generation:
                    raise
            if time.monotonic() > deadline:
                raise Outdated(
                    f"process {self._target.pid} is changed by another controller all the time",
                    remedy="try again",
                )
            tries += 1
            if tries == MOST_TRIES:  # they change it faster than it can be read
                self._place.turns.ask()
        self._swap(View(functions, link_map, natives, dispatcher, others), chosen)
        self.park_functions()
        return members

    def _swap(self, view: View, chosen: Sequence[NDArray[np.bool_]]) -> None:
        # All at once: whatever fails from here on, everything is of the same functions.
        keys, ips = self.dispatcher.keys()
        self._old_keys.update(zip(keys.tolist(), ips.tolist(), strict=True))
        is_other, self._now = view.functions is not self.functions, view
        if is_other:
            self._unapplied = True
            for ops, mine in zip(self.ops.values(), chosen, strict=True):
                ops.members = mine

    def _new_dispatcher(self, functions: Functions, natives: Natives) -> Dispatcher:
        # Moved instructions refer to the data of their module as well.
        near, member = neighbourhoods([m.near for m in functions.modules])
        return Dispatcher(
            self._target, self._region, functions.table, self.traits, natives,
            [Arena(n) for n in near], member, self._place.owner, lists_all=self._lists_all,
        )  # fmt: skip

    def _settled_generation(self) -> int:
        # The generation when nobody is in the middle of a change.
        deadline = time.monotonic() + MANNERS_S
        while (generation := self.dispatcher.ownership.check(current=False)) % 2:
            if time.monotonic() < deadline:
                time.sleep(PAUSE_S)
                continue
            with self.owned(current=False):  # whoever was at it is dead
                continue
        return generation

    def park_functions(self) -> None:
        """C functions of ops that we have no more are nobody's; those of ops that we have are kept:
        an adopter reads the target before it knows of its ops."""
        for number in self.natives.own_ids:
            if number in self.ops or number == self.leaving:
                self.natives.keep(number)
            else:
                self.natives.park(number)

    def catch_up(self) -> None:
        """Costs a look at the header where nobody else has changed anything."""
        try:
            self.dispatcher.ownership.check()
        except Outdated:
            try:
                self.look_again()
            finally:
                self._place.turns.end()

    def look_again(self) -> None:
        """Others may have found functions in what was loaded since we looked for them."""
        self.read()
        if self.dispatcher.unseen and self._is_other_code():
            self.take_over()

    @property
    def is_unapplied(self) -> bool:
        """Whether functions were found that the text has not been brought to yet."""
        return self._unapplied

    def take_news(self) -> list[Module]:
        """The modules that are loaded since the last time; once the text has been brought there."""
        self._unapplied = False
        again, self._again = self._again, set()
        fresh = {module.key for module in self.functions.fresh}
        loaded = self.functions.loaded_keys & (fresh | again)
        return [module for module in self.functions.modules if module.key in loaded]

    def refuse_stale(self) -> None:
        """Raises ModulesChanged where a module lay when its functions were looked for and another
        may be."""
        if self.link_map.has_changed():
            raise ModulesChanged(
                f"process {self._target.pid} loads or unloads libraries all the time",
                cause="what was to be patched is no longer there",
                remedy="try again",
            )

    # 2. Keys of records

    def learn_keys(self) -> None:
        """Other controllers may have given sites of ours other keys."""
        with suppress(PatchError, TargetGone):
            registry = self._region.registry
            generation = int(registry.header["generation"])
            if generation in (self.dispatcher.ownership.generation, self._keys_generation):
                return
            rows = registry.sites
            rows = rows[rows["state"] != region_layout.SiteState.GONE]
            padded = rows[rows["pad"] != 0]
            returns = (padded["pad"] + np.uint64(RETURN_OFFSET)) & np.uint64(0xFFFFFFFF)
            for keys, ips in ((rows["key"], rows["ip"]), (returns, padded["ip"])):
                self._old_keys.update(zip(keys.tolist(), ips.tolist(), strict=True))
            self._keys_generation = generation if generation % 2 == 0 else -1

    def keys(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Site keys that records may hold, and the ips they stand for."""
        self.learn_keys()
        keys, ips = self.dispatcher.keys()
        found = self._old_keys | dict(zip(keys.tolist(), ips.tolist(), strict=True))
        return np.array(list(found), np.uint32), np.array(list(found.values()), np.uint64)

    # 3. Members

    def match_again(self, ops: Ops) -> None:
        """As after a change that failed: the table may be another one by now."""
        ops.members = self.functions.match(ops.filter, ops.notrace, lenient=True)
        self.share_out_redirects()

    def share_out_redirects(self) -> None:
        """What was loaded may match the filters of two that redirect: the older one has it, or
        another controller's."""
        traceable = self.functions.table.traceable
        for ops in self.ops.values():
            if ops.redirects:
                ops.members &= ~self.functions.table.part
        for theirs in self.others.ops.values():
            for ops in self.ops.values():
                if theirs.redirects and ops.redirects:
                    ops.members &= ~theirs.members
        while found := redirected_twice(list(self.ops.values()), traceable):
            younger, both = found
            younger.members[both] = False

    def refuse_foreign(self, members: NDArray[np.bool_]) -> None:
        """Sites where a breakpoint, a uprobe or another tracer has changed the text already cannot
        be traced."""
        table = self.functions.table
        for _ in range(MOST_LOOKS):
            chosen = np.flatnonzero(members & table.traceable & ~self.dispatcher.patched)
            wrong = self.dispatcher.differs(chosen) | self.dispatcher.hole_is_foreign(chosen)
            if not wrong.any() or self.dispatcher.ownership.is_current():
                break
            self.read()  # another controller has patched them, perhaps
        table.kind[chosen[wrong]] = SiteKind.REFUSED
        table.reason[chosen[wrong]] = Reason.FOREIGN

    def refuse_parts(self, ops: Ops, members: NDArray[np.bool_]) -> None:
        """Raises BadInput where ops would redirect a part of a function."""
        parts = np.flatnonzero(members & self.functions.table.part)
        if ops.redirects and len(parts):
            name, _, _ = self.functions.symbols.resolve(int(self.functions.table.ip[parts[0]]))
            raise BadInput(
                f"{name} is a part of a function: IPMODIFY cannot redirect it",
                cause="it is in the middle of a call, and nothing else can take its place",
                remedy="leave parts out of the filter",
            )

    def refuse_second_redirect(self, every: Sequence[Ops]) -> None:
        """Raises PatchError where two of these and of other controllers' ops redirect the same
        function."""
        theirs = self.others.ops
        found = redirected_twice([*every, *theirs.values()], self.functions.table.traceable)
        if found is not None:
            row = int(found[1][0])
            name, _, _ = self.functions.symbols.resolve(int(self.functions.table.ip[row]))
            other = [one.id for one in theirs.values() if one.redirects and one.members[row]]
            by = f", and {self.others.name_of(other[0])} has it" if other else ""
            raise PatchError(
                f"{name} is redirected already, and {len(found[1]) - 1} more functions",
                cause="a function can have one ops with IPMODIFY or DIRECT" + by,
                remedy="unregister the other, or leave them out of the filter",
            )
