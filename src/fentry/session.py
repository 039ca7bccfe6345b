"""One attach: the target, its functions, its ring, and the ops registered here."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.apply import Dispatcher
from fentry.dispatch.detach import (
    refuse_living_owner,
    region_is_unused,
    remove_region,
    restore_text,
    undo,
)
from fentry.dispatch.natives import Natives
from fentry.dispatch.ops import (
    Callback,
    Flags,
    Ops,
    refuse_flags,
    refuse_open_redirect,
    split_words,
)
from fentry.dispatch.plan import make_plan, redirected_twice
from fentry.dispatch.seen import ThreadFilters
from fentry.dispatch.threads import ThreadFilter, check
from fentry.errors import (
    BadInput,
    FentryError,
    LockError,
    PatchError,
    SymbolNotFound,
    TargetGone,
)
from fentry.instance import LONGEST_NAME, TOP, Instance
from fentry.process.maps import read_maps
from fentry.process.proc import command_of, list_tids, possible_cpus
from fentry.process.shared import SharedMemory
from fentry.process.start import end, start
from fentry.process.stop import MAX_STOP_S
from fentry.process.target import CpuTraits, Halt, Target
from fentry.region import layout as region_layout
from fentry.region.layout import OPS_DTYPE, OPS_ROWS, THREADS_BYTES, Kind, State
from fentry.region.region import Region, Segment
from fentry.region.registry import find_registry
from fentry.region.threads import ThreadTable, read_whole, stored_in
from fentry.ring.buffer import Geometry, is_formatted
from fentry.ring.layout import MODE_DISCARD
from fentry.ring.reader import Batch, Stats
from fentry.sites.functions import Functions
from fentry.sites.site import Reason, SiteKind, reasons_by_value
from fentry.symbols.link_map import LinkMap
from fentry.symbols.module import Module, code_of
from fentry.trampolines.arena import Arena, neighbourhoods
from fentry.trampolines.body import Body, CountBody, Traits

BUFFER_BYTES = 8 << 20
SETS, LIST = "sets", "list"
COUNT_SLOTS = 8

_SPARE_SITES = 1 << 15  # of libraries that are loaded later; memory that is not touched
_MOST_LOOKS = 8  # at modules that come and go meanwhile


@dataclass(frozen=True, slots=True)
class Options:
    """How to attach: bytes of ring a CPU, mode of a full ring, record size, longest stop; whether
    functions call exactly their `sets` of ops, or all of them one `list` (docs/design/list.md)."""

    buffer_bytes: int = BUFFER_BYTES
    mode: int = MODE_DISCARD
    record_bytes: int = 24
    max_stop_s: float = MAX_STOP_S
    dispatch: str = SETS


class _ModulesChanged(PatchError):
    """The linker's list is not what it was when the functions were looked for."""


class Session:
    """fentry attached to one process; leaving the block detaches and restores everything."""

    def __init__(
        self,
        pid: int,
        options: Options | None = None,
        *,
        held: int = 0,
        adopting: bool = False,
    ) -> None:
        self.pid = pid
        self.options = options or Options()
        if self.options.dispatch not in (SETS, LIST):
            raise BadInput(f"{self.options.dispatch!r} is no way to dispatch: {SETS} or {LIST}")
        self.target = Target(pid, max_stop_s=self.options.max_stop_s)
        self.ops: dict[int, Ops] = {}
        self.parked_bytes = 0
        self.foreign: tuple[int, ...] = ()
        self._detached = False
        self._unapplied = False
        self._again: set[tuple[str, int, str]] = set()  # modules loaded again where they were
        self._old_keys: dict[int, int] = {}
        self._next_id = 1
        self._ops_rows: dict[int, int] = {}
        self.instances: dict[int, Instance] = {}
        self._counters: tuple[Segment, SharedMemory] | None = None
        self._threads = ThreadFilters(pid)
        self._taken: Region | None = None
        self._hold = ExitStack()
        try:
            self.top = self._add_instance(TOP, "", self.options)
            if held:
                self._hold.enter_context(self.target.stopped(held=held))
            self.target.sweep()
            if not adopting:
                # What dead controllers left, or a parent's tracing after a fork. First: the
                # analysis may have to read memory.
                undo(self.target, from_living=False)
            self.functions, self._link_map = self._look_at_modules()
            if adopting:
                self._adopt()
            else:
                self._attach()
            self.pidfd = os.pidfd_open(pid)
        except BaseException:
            if held:
                os.kill(pid, signal.SIGKILL)  # it has not begun, and nobody is left to let it
            self._hold.close()
            self._give_up()
            self.target.close()
            raise

    def _give_up(self) -> None:
        # What was made or taken over is nobody's, though this process goes on.
        with suppress(FentryError):
            if self._taken is not None and self._taken.owner() == os.getpid():
                self._taken.disown()

    def release(self) -> None:
        """Let a started command run (it is held so that its constructors are traced, too)."""
        self._hold.close()
        self.target.stop_durations_ns.clear()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # 1. Attach and detach

    def _attach(self) -> None:
        rows = 1 << int(len(self.functions.table) + _SPARE_SITES).bit_length()
        with self.target.stopped() as halt:
            if find_registry(halt.maps) is not None:
                raise LockError(
                    f"process {self.pid} is traced by another fentry",
                    cause="it attached a moment ago, or a thread is still in its code",
                    remedy=f"fentry status -p {self.pid}",
                )
            cpu = halt.traits()
            halt.stop.refuse_if_late()
            self.region = Region.create(halt.remote, self.target.memory, halt.maps, rows)
            self.region.own()
            self._taken = self.region
        self._make_dispatcher(cpu)

    def _look_at_modules(self, before: Functions | None = None) -> tuple[Functions, LinkMap]:
        # The functions, and the linker's list as it was while they were looked for.
        for _ in range(_MOST_LOOKS):
            functions = Functions(self.pid, self.target, before)
            link_map = LinkMap(functions.modules, self.target.memory.read_some)
            if code_of(read_maps(self.pid)) == functions.code:
                break
        return functions, link_map

    def _make_dispatcher(self, cpu: CpuTraits) -> None:
        header = self.region.registry.header
        self._control = int(header["control_address"])
        self._slot_bytes = int(header["site_rows"]) * 8
        tid_offset = cpu.tid_offset
        if tid_offset is None and cpu.fsgsbase and self.functions.is_static:
            tid_offset = self.functions.static_tid_offset()
        self._traits = Traits(
            cpu.rdpid, cpu.fsgsbase, cpu.rseq_offset, tid_offset,
            cpu.xstate_mask, cpu.xstate_bytes, cpu.xsavec,
        )  # fmt: skip
        self._natives = Natives(self.target, self.region)
        self._dispatcher = self._new_dispatcher(self.functions)

    def _new_dispatcher(self, functions: Functions) -> Dispatcher:
        # Moved instructions refer to the data of their module as well.
        near, member = neighbourhoods([m.span for m in functions.modules])
        return Dispatcher(
            self.target, self.region, functions.table, self._traits, self._natives,
            [Arena(n) for n in near], member, lists_all=self.options.dispatch == LIST,
        )  # fmt: skip

    def _adopt(self) -> None:
        # Go on where a controller died: its ops, its sites, its ring (docs/design/region.md).
        with self.target.stopped() as halt:
            region = Region.open(self.target.memory, halt.maps)
            if region is None or not region.is_whole or region.registry.is_inherited():
                raise TargetGone(
                    f"process {self.pid} has nothing to adopt",
                    cause="no fentry was attached to it",
                    remedy=f"fentry record -p {self.pid} -F GLOB",
                )
            refuse_living_owner(self.pid, region)
            self.region = region
            cpu = halt.traits()
            region.own()
            self._taken = region
            region.registry.begin_generation()
            tables: dict[int, tuple[ThreadTable, bytes]] = {}
            for segment in region.segments:
                if self._is_unfinished(segment):
                    region.drop(halt.remote, [segment])  # it died making it: nobody uses it
                elif segment.kind is Kind.THREADS:
                    found = read_whole(self.target.memory, segment)
                    memory = region.share(halt.remote, segment)
                    tables[segment.row] = ThreadTable(segment, memory, found), found
                else:
                    self._adopt_shared(halt, segment)
        self._make_dispatcher(cpu)
        self.functions.analyse_at(self.region.registry.sites["ip"].astype(np.uint64))
        members = self._dispatcher.adopt()
        self._natives.adopt()
        rows = region.registry.ops
        for number in self._rows_in_force(rows):
            row = rows[number]
            self._ops_rows[int(row["id"])] = number
            text = bytes(row["filter"]).decode(errors="surrogateescape")
            ops = Ops(Callback(int(row["callback"])), *split_words(text))
            ops.id, ops.slot = int(row["id"]), int(row["slot"])
            ops.instance, ops.flags = int(row["instance"]), Flags(int(row["flags"]))
            ops.members = members.get(ops.id, np.zeros(len(self.functions.table), np.bool_))
            if len(row["filter"]) < OPS_DTYPE["filter"].itemsize:  # it is whole
                ops.members = self.functions.match(ops.filter, ops.notrace, lenient=True)
                self._refuse_foreign(ops.members)
            self.ops[ops.id] = ops
        self._adopt_threads(tables.values())
        for number in self._natives.ids - self.ops.keys():
            self._natives.park(number)
        known = (*self.ops, *self._dispatcher.known_ids, *self._natives.ids)
        self._next_id = 1 + max(known, default=0)
        self._share_out_redirects()
        self._apply()  # what it was in the middle of is done

    def _rows_in_force(self, rows: NDArray[np.void]) -> list[int]:
        # Numbers of the rows of ops that go on. Those of which the controller died before they
        # were complete, or when others had taken their place, are over.
        live = rows["state"] == State.LIVE
        replaced = np.isin(rows["id"], rows["replaces"][live & (rows["replaces"] != 0)])
        without = (rows["callback"] == Callback.CALL) & ~np.isin(
            rows["id"], np.array(list(self._natives.ids), np.uint32)
        )
        over = live & (replaced | without)
        for number in np.flatnonzero(over).tolist():
            self.region.registry.write_ops(number, np.zeros((), OPS_DTYPE))
        kept: list[int] = np.flatnonzero(live & ~over).tolist()
        return kept

    def _is_unfinished(self, segment: Segment) -> bool:
        # Whether shared memory has no size yet, or a ring is not formatted.
        if segment.kind not in (Kind.RING, Kind.COUNTERS, Kind.THREADS):
            return False
        start = self.target.memory.read_some(segment.address, 16)
        return not start or (segment.kind is Kind.RING and not is_formatted(start))

    def _adopt_shared(self, halt: Halt, segment: Segment) -> None:
        if segment.kind is Kind.COUNTERS:
            self._counters = segment, self.region.share(halt.remote, segment)
            self._write_counter_bases(halt, segment)
        elif segment.kind is Kind.RING:
            if segment.instance != TOP:
                self._add_instance(segment.instance, segment.name, self.options)
            memory = self.region.share(halt.remote, segment)
            self.instances[segment.instance].take_ring(segment, memory)

    def _adopt_threads(self, tables: Iterable[tuple[ThreadTable, bytes]]) -> None:
        for table, found in tables:
            ops = self.ops.get(table.segment.instance)
            if ops is None or Flags.PID not in ops.flags:
                self._threads.spare.append(table)
                continue
            seen = self._threads.add(ops.id, table)
            seen.take(stored_in(found))
            ops.threads = seen.wanted

    def detach(self) -> None:
        """Restore the text and unmap everything. Safe to call again, and to be repeated when it
        failed."""
        if self._detached:
            return
        self._hold.close()
        try:
            if self.target.is_alive():
                self._undo()
        except TargetGone:
            pass  # nothing is left that could be restored
        self._detached = True
        self.ops.clear()

    def _undo(self) -> None:
        with self.target.stopped(bounded=False) as halt:
            mapping = find_registry(halt.maps)
            if mapping is None or mapping.start != self.region.registry.address:
                return  # another controller detached it
            if self.was_detached():
                return  # another controller has it
            self.foreign = restore_text(halt, self.region).foreign
        self.parked_bytes = remove_region(self.target, self.region)

    def close(self) -> None:
        """Detach, and give descriptors back. Counts and records can still be read afterwards."""
        try:
            self.detach()
        finally:
            if self.pidfd >= 0:
                os.close(self.pidfd)
                self.pidfd = -1
                self.target.close()

    @property
    def has_ended(self) -> bool:
        """Whether a command that run() started has ended in our hands, inside a stop."""
        return self.target.exit_status is not None

    def exit_code(self) -> int:
        """Wait for a command that run() started; its exit code as a shell gives it: 128 + n when
        signal n killed it."""
        code = os.waitstatus_to_exitcode(self._reaped())
        return 128 - code if code < 0 else code

    def _reaped(self) -> int:
        if self.target.exit_status is not None:
            return self.target.exit_status
        _, status = os.waitpid(self.pid, 0)
        return status

    # 2. Ops

    def register(self, ops: Ops) -> Ops:
        """Let `ops` see its functions from now on; returns it with its id.

        Raises SymbolNotFound, BadInput, PatchError, LockError, StopTimeout; then nothing changed.
        """
        self._refuse_threads(ops.threads)
        refuse_flags(ops)
        self._renew()
        wanted, notrace = map(self.functions.settled, (ops.filter, ops.notrace))
        members = self.functions.match(wanted, notrace)
        self._refuse_foreign(members)
        if not (members & self.functions.table.traceable).any():
            raise SymbolNotFound(
                f"none of the {int(members.sum())} functions that match can be traced",
                cause=self._first_reason(members),
                remedy=f"fentry list -p {self.pid} tells the reason for each",
            )
        ops.id, self._next_id = self._next_id, self._next_id + 1
        ops.members = members
        try:
            self._refuse_second_redirect([*self.ops.values(), ops])
            self._prepare_memory(ops)
            ops.filter, ops.notrace = wanted, notrace
            self.ops[ops.id] = ops
            self._make_threads(ops)
            self._apply(first=[ops])
        except BaseException:
            self._threads.remove(ops.id)
            self.ops.pop(ops.id, None)
            self._ops_rows.pop(ops.id, None)
            self._natives.park(ops.id)
            ops.id = 0
            raise
        return ops

    def _refuse_second_redirect(self, every: Sequence[Ops]) -> None:
        found = redirected_twice(every, self.functions.table.traceable)
        if found is not None:
            name, _, _ = self.functions.symbols.resolve(int(self.functions.table.ip[found[1][0]]))
            raise PatchError(
                f"{name} is redirected already, and {len(found[1]) - 1} more functions",
                cause="a function can have one ops with IPMODIFY",
                remedy="unregister the other, or leave them out of the filter",
            )

    def unregister(self, ops: Ops) -> None:
        """Take `ops` away; the functions that only it wanted are as if never traced."""
        self._refuse_unregistered(ops)
        del self.ops[ops.id]
        try:
            self._apply(last=[ops])
        except BaseException:
            self.ops[ops.id] = ops
            self._match_again(ops)
            raise
        del self._ops_rows[ops.id]
        self._threads.remove(ops.id)
        self._natives.park(ops.id)

    def set_filter(self, ops: Ops, wanted: Sequence[str], notrace: Sequence[str] = ()) -> None:
        """Change which functions registered ops see, in one transaction."""
        self._renew()
        wanted, notrace = map(self.functions.settled, (wanted, notrace))
        members = self.functions.match(wanted, notrace)
        self._refuse_foreign(members)
        before = ops.filter, ops.notrace
        ops.filter, ops.notrace, ops.members = tuple(wanted), tuple(notrace), members
        try:
            refuse_open_redirect(ops)
            self._refuse_second_redirect(list(self.ops.values()))
            self._apply(first=[ops])
        except BaseException:
            ops.filter, ops.notrace = before
            self._match_again(ops)
            raise

    def set_threads(self, ops: Ops, threads: ThreadFilter) -> None:
        """Change which threads registered ops see, for every call that begins from now on.

        Nothing is stopped, but where a first filter comes or the last goes: then `ops.id` is a new
        one. Raises BadInput, and as register(); then nothing changed.
        """
        if self.ops.get(ops.id) is not ops:
            raise BadInput("these ops are not registered")
        self._refuse_threads(threads)
        seen = self._threads.get(ops.id)
        if (seen is None) is bool(threads):
            self._replace(ops, threads)
        elif seen is not None:
            self._dispatcher.check_owner()  # else another controller has moved the table
            seen.set(threads)
            ops.threads = threads

    def follow_threads(self) -> None:
        """Take threads that have ended off the lists of all ops, and add those that have got a name
        of theirs. To be called every 10 ms; more often costs nothing."""
        self._threads.look()

    def unmatched_names(self, ops: Ops) -> list[str]:
        """Those of the names of threads that an ops wants that no thread has had yet."""
        seen = self._threads.get(ops.id)
        return sorted(seen.unmatched) if seen is not None else []

    def _replace(self, ops: Ops, threads: ThreadFilter) -> None:
        # By ops of a new id: the trampoline is another one. Both are in the registry meanwhile.
        self._renew()
        before = Ops(ops.callback, flags=ops.flags, id=ops.id, threads=ops.threads)
        del self.ops[ops.id]
        ops.id, self._next_id = self._next_id, self._next_id + 1
        ops.threads = threads
        self.ops[ops.id] = ops
        try:
            self._make_threads(ops)
            self._apply(first=[ops], last=[before])
        except BaseException:
            self._threads.remove(ops.id)
            del self.ops[ops.id]
            self._ops_rows.pop(ops.id, None)
            ops.id, ops.flags, ops.threads = before.id, before.flags, before.threads
            self.ops[ops.id] = ops
            raise
        del self._ops_rows[before.id]
        self._threads.remove(before.id)

    def _refuse_threads(self, threads: ThreadFilter) -> None:
        if not threads:
            return
        if self._traits.tid_offset is None:
            raise BadInput(
                f"the threads of process {self.pid} cannot be told apart",
                cause="it keeps no thread ids where glibc and musl have them",
                remedy="trace all of its threads",
            )
        check(threads, self.pid, frozenset(list_tids(self.pid)))

    def _make_threads(self, ops: Ops) -> None:
        # The table of its threads is complete before a trampoline asks it.
        ops.flags &= ~Flags.PID
        if not ops.threads:
            return
        ops.flags |= Flags.PID
        if self._threads.spare:
            table = self._threads.spare.pop()
            with self.owned():
                self.region.set_instance(table.segment, ops.id)
        else:
            table = ThreadTable(*self._add_shared(Kind.THREADS, THREADS_BYTES, ops.id))
        self._threads.add(ops.id, table).set(ops.threads)

    def follow_modules(self) -> list[Module]:
        """Trace what has been loaded since by the filters of all ops; the new modules.

        Nothing is done, and nothing of the target but a list read, where nothing was loaded or
        unloaded. Raises as register(); then it may be tried again.
        """
        self._renew(thoroughly=False)
        if not self._unapplied:
            return []
        self._apply(first=list(self.ops.values()))
        self._unapplied = False
        again, self._again = self._again, set()
        fresh = {module.key for module in self.functions.fresh}
        loaded = self.functions.loaded_keys & (fresh | again)
        return [module for module in self.functions.modules if module.key in loaded]

    def _renew(self, *, thoroughly: bool = True) -> None:
        # Looks for the functions again if something was loaded or unloaded. What lies in memory is
        # compared as well: another build of a library may take the place of one that was not
        # patched, and its entry in the linker's list.
        lost = {self.functions.modules[number].key for number in self._dispatcher.lost()}
        changed = self._link_map.has_changed() or bool(lost)
        if changed or (thoroughly and code_of(read_maps(self.pid)) != self.functions.code):
            self._dispatcher.check_owner()  # else another controller has put the text back
            self._take_over()
            self._again |= lost

    def _take_over(self) -> None:
        # The ops see what is loaded now; the registry says what is patched already, as when
        # another controller goes on.
        functions, link_map = self._look_at_modules(self.functions)
        keys, ips = self.keys()
        members = [functions.match(o.filter, o.notrace, lenient=True) for o in self.ops.values()]
        dispatcher = self._new_dispatcher(functions)
        functions.analyse_at(self.region.registry.sites["ip"].astype(np.uint64))
        dispatcher.adopt()
        functions.refuse_unloaded()
        self._old_keys.update(zip(keys.tolist(), ips.tolist(), strict=True))
        self.functions, self._link_map, self._dispatcher = functions, link_map, dispatcher
        self._unapplied = True
        for ops, chosen in zip(self.ops.values(), members, strict=True):
            ops.members = chosen
            self._refuse_foreign(chosen)
        self._share_out_redirects()

    def _match_again(self, ops: Ops) -> None:
        # As after a change that failed: the table may be another one by now.
        ops.members = self.functions.match(ops.filter, ops.notrace, lenient=True)
        self._share_out_redirects()

    def _share_out_redirects(self) -> None:
        # What was loaded may match the filters of two that redirect: the older one has it.
        traceable = self.functions.table.traceable
        while found := redirected_twice(list(self.ops.values()), traceable):
            younger, both = found
            younger.members[both] = False

    def _refuse_foreign(self, members: NDArray[np.bool_]) -> None:
        # Sites where a breakpoint, a uprobe or another tracer has changed the text already.
        table = self.functions.table
        chosen = np.flatnonzero(members & table.traceable & ~self._dispatcher.patched)
        wrong = self._dispatcher.differs(chosen) | self._dispatcher.hole_is_foreign(chosen)
        table.kind[chosen[wrong]] = SiteKind.REFUSED
        table.reason[chosen[wrong]] = Reason.FOREIGN

    def _first_reason(self, members: NDArray[np.bool_]) -> str:
        reasons = self.functions.table.reason[members]
        return reasons_by_value()[int(reasons[0])].text if len(reasons) else ""

    def _apply(self, *, first: Sequence[Ops] = (), last: Sequence[Ops] = ()) -> None:
        # Bring the target to what all ops want. The registry says of ops that come before the
        # text changes, of ops that go after it.
        for attempt in range(_MOST_LOOKS):
            plan = make_plan(list(self.ops.values()), self.functions.table.traceable)
            coming = [self._ops_entry(ops, State.LIVE) for ops in first]
            going = [self._ops_entry(ops, State.FREE) for ops in last]
            for (_, row), ops in zip(coming, last, strict=False):
                row["replaces"] = ops.id  # both are in the registry for a moment
            try:
                self._dispatcher.apply(
                    plan, self._body, verify=self._refuse_stale,
                    before=partial(self._write_ops, coming), after=partial(self._write_ops, going),
                    undo=partial(self._write_ops, self._ops_now(coming)),
                )  # fmt: skip
                return
            except _ModulesChanged:
                if attempt == _MOST_LOOKS - 1:
                    raise
                self._take_over()

    def _refuse_stale(self) -> None:
        # Inside the stop: where a module lay when its functions were looked for, another may be.
        if self._link_map.has_changed():
            raise _ModulesChanged(
                f"process {self.pid} loads or unloads libraries all the time",
                cause="what was to be patched is no longer there",
                remedy="try again",
            )

    def _body(self, number: int) -> Body:
        ops, threads = self.ops[number], self._threads.address_of(number)
        if ops.callback is Callback.RECORD:
            return replace(self.instances[ops.instance].body, threads=threads)
        if ops.callback is Callback.CALL:
            return self._natives.body(number)
        assert self._counters is not None
        segment, _ = self._counters
        return CountBody(
            bases=self._control + region_layout.COUNTER_BASES_OFFSET,
            displacement=ops.slot * self._slot_bytes,
            shared=segment.address + possible_cpus() * COUNT_SLOTS * self._slot_bytes,
            control=self._control,
            threads=threads,
        )

    def _write_ops(self, entries: Sequence[tuple[int, NDArray[np.void]]]) -> None:
        for number, row in entries:
            self.region.registry.write_ops(number, row)

    def _ops_now(
        self, entries: Sequence[tuple[int, NDArray[np.void]]]
    ) -> list[tuple[int, NDArray[np.void]]]:
        # The same rows as the registry has them.
        rows = self.region.registry.ops if entries else np.empty(0, OPS_DTYPE)
        return [(number, rows[number]) for number, _ in entries]

    def _ops_entry(self, ops: Ops, state: State) -> tuple[int, NDArray[np.void]]:
        # Number and content of its row in the registry.
        row = np.zeros((), OPS_DTYPE)
        row["id"], row["state"], row["callback"] = ops.id, state, ops.callback
        if state is State.LIVE:  # of others the members may be those of an older table
            row["nr_sites"] = int((ops.members & self.functions.table.traceable).sum())
        row["owner_pid"] = os.getpid()
        row["slot"], row["instance"], row["flags"] = ops.slot, ops.instance, ops.flags
        row["filter"] = ops.text.encode(errors="surrogateescape")[: OPS_DTYPE["filter"].itemsize]
        return self._ops_row(ops), row

    def _ops_row(self, ops: Ops) -> int:
        if ops.id not in self._ops_rows:
            free = set(range(OPS_ROWS)) - set(self._ops_rows.values())
            if not free:
                raise BadInput(f"{OPS_ROWS} ops are registered already")
            self._ops_rows[ops.id] = min(free)
        return self._ops_rows[ops.id]

    # 3. Instances

    def instance(self, name: str, options: Options | None = None) -> Instance:
        """The instance of this name; made, with a ring by `options`, if there is none yet.

        Raises BadInput for a name that is empty or longer than 24 bytes, or when 64 rings exist.
        """
        for one in self.instances.values():
            if one.name == name and name:
                return one
        if not name or len(name.encode()) > LONGEST_NAME or "\0" in name:
            raise BadInput(f"{name!r} is no name of an instance", remedy="1 to 24 bytes")
        free = sorted(set(range(region_layout.MAX_RINGS)) - set(self.instances))
        if not free:
            raise BadInput(f"{region_layout.MAX_RINGS} instances exist already")
        return self._add_instance(free[0], name, options or self.options)

    def remove_instance(self, instance: Instance) -> None:
        """Unregister its ops and give its ring back. Raises BadInput for the top instance,
        PatchError when a thread is still in a trampoline: then its ops are gone, and it may be
        tried again."""
        if self.instances.get(instance.number) is not instance or instance is self.top:
            raise BadInput("this instance cannot be removed")
        for ops in instance.ops:
            self.unregister(ops)
        segment = instance.segment
        if segment is not None:
            with self.owned() as halt:
                if not region_is_unused(halt, self.region):
                    raise PatchError(
                        f"the ring of instance {instance.name!r} is in use",
                        cause="a thread is in a trampoline",
                        remedy="try again",
                    )
                self.region.drop(halt.remote, [segment])
        del self.instances[instance.number]

    def _add_instance(self, number: int, name: str, options: Options) -> Instance:
        geometry = Geometry.for_bytes(
            options.buffer_bytes, possible_cpus(), options.record_bytes, options.mode
        )
        self.instances[number] = Instance(self, number, name, geometry)
        return self.instances[number]

    def owned(self) -> AbstractContextManager[Halt]:
        """The target stopped, and the region still ours. Raises LockError, TargetGone,
        StopTimeout."""
        return self._dispatcher.owned()

    # 4. Shared memory

    def _prepare_memory(self, ops: Ops) -> None:
        if ops.callback is Callback.RECORD:
            instance = self.instances.get(ops.instance)
            if instance is None:
                raise BadInput("the instance of these ops was removed")
            instance.make_ring(self._add_shared, lambda count: check_memory(self.pid, count))
            return
        if ops.callback is Callback.CALL:
            self._place_function(ops)
            return
        if self._counters is None:
            self._make_counters()
        taken = {one.slot for one in self.ops.values() if one.callback is Callback.COUNT}
        free = sorted(set(range(COUNT_SLOTS)) - taken)
        if not free:
            raise BadInput(f"{COUNT_SLOTS} counting ops are registered already")
        ops.slot = free[0]
        self._zero_counters(ops.slot)

    def _place_function(self, ops: Ops) -> None:
        with self.owned() as halt:
            self._natives.place(halt, ops, self._dispatcher.code)

    def _make_counters(self) -> None:
        count = (possible_cpus() + 1) * COUNT_SLOTS * self._slot_bytes
        segment, memory = self._add_shared(Kind.COUNTERS, count, TOP)
        with self.owned() as halt:
            self._write_counter_bases(halt, segment)
        self._counters = segment, memory

    def _write_counter_bases(self, halt: Halt, segment: Segment) -> None:
        header = self.region.registry.header
        slot_bytes = int(header["site_rows"]) * 8
        bases = np.arange(possible_cpus(), dtype="<u8") * np.uint64(COUNT_SLOTS * slot_bytes)
        bases += np.uint64(segment.address)
        place = int(header["control_address"]) + region_layout.COUNTER_BASES_OFFSET
        halt.target.memory.write(place, bases.tobytes())

    def _add_shared(self, kind: Kind, count: int, instance: int) -> tuple[Segment, SharedMemory]:
        with self.owned() as halt:
            held: list[SharedMemory] = []
            segment = self.region.add(halt.remote, kind, count, instance=instance, keep=held.append)
        return segment, held[0]

    def _zero_counters(self, slot: int) -> None:
        self._counter_view()[:, slot, :] = 0

    def _counter_view(self) -> NDArray[np.uint64]:
        assert self._counters is not None
        _, memory = self._counters
        shape = (possible_cpus() + 1, COUNT_SLOTS, self._slot_bytes // 8)
        count = shape[0] * shape[1] * shape[2]
        return np.frombuffer(memory.bytes, "<u8", count=count).reshape(shape)

    # 5. Reading

    def counts(self, ops: Ops) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """(ips, calls) of counting ops: calls counted since registration, target addresses."""
        rows = self._dispatcher.rows
        sites = np.flatnonzero(rows >= 0)
        totals = self._counter_view()[:, ops.slot, :].sum(axis=0, dtype=np.uint64)
        return self.functions.table.ip[sites], totals[rows[sites]]

    def private(self, ops: Ops) -> bytes:
        """The private memory of calling ops, as it is in the target now. Raises BadInput when they
        are not registered any more."""
        self._refuse_unregistered(ops)
        return self._natives.private(ops.id)

    def skipped(self, ops: Ops) -> int:
        """Calls of guarded ops (RECURSION) that were not made because one ran already. Raises
        BadInput as private()."""
        self._refuse_unregistered(ops)
        return self._natives.dropped(ops.id)

    def _refuse_unregistered(self, ops: Ops) -> None:
        if self.ops.get(ops.id) is not ops:
            raise BadInput("these ops are not registered")

    def consume(self, *, final: bool = False) -> Iterator[Batch]:
        """Records of the top instance committed up to now, by CPU and position; each is given once.

        `final` skips what was reserved and never committed: after detach, or when the target
        has died.
        """
        return self.top.consume(final=final)

    @property
    def stats(self) -> Stats | None:
        """What became of the calls recorded into the top instance; None when no ops records."""
        return self.top.stats

    @property
    def fill(self) -> float:
        """How full the top instance's ring is, 0 to 1."""
        return self.top.fill

    @property
    def nr_cpus(self) -> int:
        """Possible CPUs: how many buffers the ring has."""
        return possible_cpus()

    @property
    def command(self) -> str:
        """The target's command line."""
        return command_of(self.pid)

    @property
    def ring(self) -> Geometry:
        """The geometry of the top instance's ring. Raises BadInput when no ops records."""
        return self.top.ring

    def why_over(self) -> str:
        """Why this session can see nothing any more, in words for people; "" while it can."""
        if select.select([self.pidfd], [], [], 0)[0]:
            return "the process ended"
        was_detached = self.was_detached()  # first: an exec in between is none
        if not self.target.is_alive():
            ending = self.target.is_ending()
            return "the process ended" if ending else "the process replaced itself by exec"
        return "another controller detached it" if was_detached else ""

    def was_detached(self) -> bool:
        """Whether another controller has removed or taken the region."""
        try:
            return self.region.owner() != os.getpid()
        except FentryError:
            return True

    def keys(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Site keys that records may hold, and the ips they stand for."""
        keys, ips = self._dispatcher.keys()
        found = self._old_keys | dict(zip(keys.tolist(), ips.tolist(), strict=True))
        return np.array(list(found), np.uint32), np.array(list(found.values()), np.uint64)


def attach(pid: int, options: Options | None = None) -> Session:
    """Attach to a live process. Raises TargetGone, AttachError, LockError, StopTimeout."""
    return Session(pid, options)


def adopt(pid: int, options: Options | None = None) -> Session:
    """Go on with what a dead controller left: its ops are in `session.ops`, its ring is read on.

    Raises TargetGone when there is nothing to adopt, LockError when its controller lives.
    """
    return Session(pid, options, adopting=True)


def run(command: Sequence[str], options: Options | None = None) -> Session:
    """Start a command, held before its constructors run; release() lets it go."""
    pid = start(command)
    try:
        return Session(pid, options, held=pid)
    except BaseException:
        end(pid)
        raise


def check_memory(pid: int, count: int) -> None:
    """Refuse a ring that would take more than half of the memory that is free for it.

    Raises BadInput. Limits: MemAvailable (proc(5)), the memory cgroup of this process.
    """
    from fentry.process.limits import available_bytes

    available = available_bytes(pid)
    if count > available // 2:
        raise BadInput(
            f"a ring of {count} bytes would take more than half of the {available} bytes free",
            cause="memory of the machine, or of the control group",
            remedy="a smaller buffer (-m)",
        )
