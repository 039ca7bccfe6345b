"""The memory of ops in a target: rings, counters, tables of threads, C functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.controllers import COUNT_SLOTS
from fentry.dispatch.counters import Counters, bytes_of, free_slot, write_bases
from fentry.dispatch.ops import Callback, Flags, Ops
from fentry.dispatch.seen import ThreadFilters
from fentry.dispatch.threads import ThreadFilter, check
from fentry.errors import BadInput, PatchError
from fentry.instance import TOP, Host, Instance
from fentry.process.proc import list_tids
from fentry.process.shared import SharedMemory
from fentry.process.target import Halt
from fentry.region import layout as region_layout
from fentry.region.layout import THREADS_BYTES, Kind
from fentry.region.region import Segment
from fentry.region.threads import ThreadTable, stored_in
from fentry.session.known import Known
from fentry.session.options import Options, check_memory
from fentry.session.place import Place
from fentry.trampolines.body import Body


def _nothing(halt: Halt, segment: Segment) -> None:
    pass


class OpsMemory:
    """What our ops have in the target beside text; `instances` by number, `counters` while an ops
    has counted, `threads` the tables of ops that see some threads only."""

    def __init__(
        self,
        place: Place,
        known: Known,
        instances: dict[int, Instance],
        counters: Counters | None,
    ) -> None:
        self._place = place
        self._known = known
        self.instances = instances
        self.counters = counters
        self.threads = ThreadFilters(place.pid)
        self._old_slots: dict[int, int] = {}  # of counting ops that have gone, by id

    @property
    def top(self) -> Instance:
        """The instance of whoever names none."""
        return self.instances[self._place.owner.top]

    # 1. An ops comes

    def prepare(self, ops: Ops) -> None:
        """Ring, counters or C function are there. Raises BadInput, and what a stop raises."""
        if ops.callback is Callback.RECORD:
            instance = self.instances.get(ops.instance)
            if instance is None:
                raise BadInput("the instance of these ops was removed")
            instance.make_ring(
                self._add_shared, partial(check_memory, self._place.pid), self._known.traits
            )
            return
        if ops.callback in (Callback.CALL, Callback.DIRECT):
            self.place_function(ops)
            return
        if self.counters is None:
            count = bytes_of(self._place.region)
            made = self._add_shared(Kind.COUNTERS, count, TOP, self._write_bases)
            self.counters = Counters(self._place.region, *made)
        others = [one for one in self._known.ops.values() if one is not ops]
        ops.slot = self._free_slot([o.slot for o in others if o.callback is Callback.COUNT])
        self.counters.zero(ops.slot)

    def _free_slot(self, taken: list[int]) -> int:
        # Not one into which somebody may be about to count a call of ops that have gone, while
        # there is another.
        def left() -> list[int]:
            numbers = [
                one for one in self._old_slots if self._known.dispatcher.trampolines.may_run(one)
            ]
            self._old_slots = {one: self._old_slots[one] for one in numbers}
            return list(self._old_slots.values())

        if not set(range(COUNT_SLOTS)) - {*taken, *left()}:
            self._place.turns.retried(self._free_parked)
        with suppress(BadInput):
            return free_slot([*taken, *left()])
        return free_slot(taken)

    def _free_parked(self) -> None:
        with self._known.owned() as halt:
            self._known.dispatcher.free_parked(halt)

    def place_function(self, ops: Ops) -> None:
        """The C function or direct code of ops is in the target."""
        near = 0
        if ops.callback is Callback.DIRECT:  # where most of its functions are
            table = self._known.functions.table
            ips = table.ip[ops.members & table.traceable]
            near = int(np.sort(ips)[len(ips) // 2])

        def place() -> None:
            known = self._known
            with known.owned() as halt, known.dispatcher.ownership.changing():
                known.natives.place(halt, ops, known.dispatcher.code, near)

        self._place.turns.retried(place)

    def alias(self, number: int, other: int) -> None:
        """The C function of ops `number` is that of ops `other` as well."""
        self._place.turns.retried(partial(self._alias, number, other))

    def _alias(self, number: int, other: int) -> None:
        with self._known.owned():
            self._known.natives.alias(number, other)

    def _write_bases(self, halt: Halt, segment: Segment) -> None:
        write_bases(halt.target.memory, self._place.region, segment)

    def _add_shared(
        self,
        kind: Kind,
        count: int,
        instance: int,
        then: Callable[[Halt, Segment], None] = _nothing,
    ) -> tuple[Segment, SharedMemory]:
        # `then` makes it complete in the same stop: a second one could fail, and others would find
        # two of them.
        self._place.sweep()
        with self._known.owned(current=False) as halt:
            held: list[SharedMemory] = []
            segment = self._place.region.add(
                halt.remote, kind, count, instance=instance, owner=self._place.owner.number,
                keep=held.append,
            )  # fmt: skip
            then(halt, segment)
        return segment, held[0]

    # 2. An ops is there

    def body(self, number: int) -> Body:
        """What a trampoline does for the ops of this id, ours or another controller's. Raises
        PatchError where the registry does not tell, LockError when we have nothing there."""
        known = self._known
        if number not in known.ops:
            try:
                return known.others.body(number, threads=known.traits.tid_offset is not None)
            except PatchError:
                known.dispatcher.ownership.check()  # it has left since, and taken its ring with it
                raise
        ops, threads = known.ops[number], self.threads.address_of(number)
        if ops.callback is Callback.RECORD:
            return replace(self.instances[ops.instance].body, threads=threads)
        if ops.callback in (Callback.CALL, Callback.DIRECT):
            return known.natives.body(number, threads)
        assert self.counters is not None
        return self.counters.body(ops.slot, threads)

    def counts(self, ops: Ops) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """(ips, calls) of counting ops."""
        rows = self._known.dispatcher.rows
        sites = np.flatnonzero(rows >= 0)
        assert self.counters is not None
        totals = self.counters.totals(ops.slot)
        return self._known.functions.table.ip[sites], totals[rows[sites]]

    # 3. An ops goes

    def leave_slot(self, number: int, ops: Ops) -> None:
        """Counting ops had this id, and code that counts for it may still run."""
        if ops.callback is Callback.COUNT:
            self._old_slots[number] = ops.slot

    def let_go(self, ops: Ops) -> None:
        """Whoever registers it next has another top instance."""
        if ops.instance == self.top.number:
            ops.instance = TOP

    # 4. Threads

    def refuse_threads(self, threads: ThreadFilter) -> None:
        """Raises BadInput for a filter that this process cannot have."""
        if not threads:
            return
        if self._known.traits.tid_offset is None:
            raise BadInput(
                f"the threads of process {self._place.pid} cannot be told apart",
                cause="it keeps no thread ids where glibc and musl have them",
                remedy="trace all of its threads",
            )
        check(threads, self._place.pid, frozenset(list_tids(self._place.pid)))

    def make_threads(self, ops: Ops) -> None:
        """The table of its threads is complete before a trampoline asks it."""
        ops.flags &= ~Flags.PID
        if not ops.threads:
            return
        ops.flags |= Flags.PID
        table = self.threads.take(self._known.dispatcher.trampolines.may_run)
        if table is None and self.threads.has_spare:
            self._place.turns.retried(self._free_parked)
            table = self.threads.take(self._known.dispatcher.trampolines.may_run)
        if table is not None:
            with self._known.owned(current=False):
                self._place.region.set_instance(table.segment, ops.id)
        else:
            table = ThreadTable(*self._add_shared(Kind.THREADS, THREADS_BYTES, ops.id))
        self.threads.add(ops.id, table).set(ops.threads)

    def adopt_threads(self, tables: Iterable[tuple[ThreadTable, bytes]]) -> None:
        """Go on with the tables, and what they hold, of a dead controller whose ops are ours."""
        for table, found in tables:
            ops = self._known.ops.get(table.segment.instance)
            if ops is None or Flags.PID not in ops.flags:
                self.threads.leave(table.segment.instance, table)
                continue
            seen = self.threads.add(ops.id, table)
            seen.take(stored_in(found))
            ops.threads = seen.wanted

    # 5. Instances

    def add_instance(self, host: Host, name: str, options: Options) -> Instance:
        """A new one. Raises BadInput when there are as many as there can be."""
        geometry = options.geometry()
        with self._known.owned(current=False):
            number = self._place.region.owners.add_instance(self._place.owner)
        if not number:
            raise BadInput(f"{region_layout.MAX_RINGS} instances exist already")
        self.instances[number] = Instance(host, number, name, geometry)
        return self.instances[number]

    def remove_instance(self, instance: Instance) -> None:
        """Its ring is given back, once it has no ops. Raises PatchError while a thread is in a
        trampoline."""
        self._place.turns.retried(partial(self._drop_instance, instance))
        del self.instances[instance.number]

    def _drop_instance(self, instance: Instance) -> None:
        known = self._known
        with known.owned() as halt:
            if instance.segment is not None:
                known.dispatcher.free_parked(halt)
                if known.dispatcher.trampolines.needs(known.others.ids | known.ops.keys()):
                    raise PatchError(
                        f"the ring of instance {instance.name!r} is in use",
                        cause="a thread is in a trampoline",
                        remedy="try again",
                    )
                self._place.region.drop(halt.remote, [instance.segment])
            self._place.region.owners.remove_instance(self._place.owner, instance.number)
