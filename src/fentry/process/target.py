"""One target process: its memory, its stops, and what generated code may use in it."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, cached_property

from fentry.errors import AttachError, BadInput, LockError, TargetGone
from fentry.process import ptrace
from fentry.process.deferral import deferred_signals
from fentry.process.frames import SignalFrame, Stacks, search_stacks
from fentry.process.freezer import refuse_frozen
from fentry.process.gates import refusal
from fentry.process.guard import guard
from fentry.process.maps import Mapping, read_maps
from fentry.process.memory import Memory
from fentry.process.proc import (
    children_of,
    command_of,
    is_dead,
    list_tids,
    living,
    read_stat,
    read_status,
)
from fentry.process.remote import Remote, find_room, room_is_used, sweep_room
from fentry.process.stop import MAX_STOP_S, Stop
from fentry.process.stub import prepare as prepare_stubs
from fentry.x86.xstate import AVX, AVX512, SSE, X87

_ELF64 = b"\x7fELF\x02"
_X86_64 = 62  # EM_X86_64
_AT_HWCAP2 = 26
_HWCAP2_FSGSBASE = 1 << 1  # arch/x86/include/uapi/asm/hwcap2.h
_SWEEP_LIMIT_S = 5.0
_SWEEP_PAUSE_S = 0.001
_VFORK_LIMIT_S = 10.0
_TCB_BYTES = 0x800
_PTHREAD_BYTES = 0x1000  # more than a struct pthread of glibc; 2.36 has its rseq area at 0x9a0
_TID_OFFSETS = (0x2D0, 0x30)  # struct pthread: tid, of glibc 2.x and of musl 1.2 on x86-64


@dataclass(frozen=True, slots=True)
class CpuTraits:
    """What the processor and the threads of the target offer to generated code."""

    rdpid: bool
    fsgsbase: bool
    rseq_offset: int | None
    tid_offset: int | None
    xstate_mask: int
    xsavec: bool


class Halt:
    """The target with all its threads stopped: valid inside `Target.stopped()` only."""

    def __init__(self, target: Target, stop: Stop, before: Sequence[Mapping]) -> None:
        self.target = target
        self.stop = stop
        self._before = before
        self.remote = Remote(stop, target.memory, target.room)

    @cached_property
    def maps(self) -> list[Mapping]:
        """The mappings at the beginning of this stop."""
        return read_maps(self.target.pid)

    @cached_property
    def _stacks(self) -> Stacks:
        return search_stacks(self.stop, self.target.memory, self._before, lambda: self.maps)

    @property
    def frames(self) -> list[SignalFrame]:
        """The signal frames of all threads."""
        return self._stacks.frames

    def traits(self) -> CpuTraits:
        """What generated code may use, from the processor and the threads as they are."""
        flags = cpu_flags()
        if "lahf_lm" not in flags:
            raise AttachError("this processor has no LAHF in 64-bit mode")
        threads = [t for t in self.stop.threads.values() if t.regs.rip]
        bases = [t.regs.fs_base for t in threads]
        fsgsbase = bool(_auxv_word(self.target.pid, _AT_HWCAP2) & _HWCAP2_FSGSBASE)
        if not fsgsbase and not all(bases):
            raise AttachError(
                "a thread has no thread pointer, and this machine cannot test for that",
                cause="no FSGSBASE instructions (a processor or kernel older than Linux 5.9)",
            )
        tids = [t.tid for t in threads]
        own = read_status(self.target.pid).ns_pid
        if own != self.target.pid:  # tids as the target knows them
            tids = [read_status(self.target.pid, tid).ns_pid for tid in tids]
        tid_offset = _tid_offset(tids, bases, self.target.memory)
        areas = [ptrace.rseq_configuration(t.tid) for t in threads]
        return CpuTraits(
            rdpid="rdpid" in flags,
            fsgsbase=fsgsbase,
            rseq_offset=_rseq_offset(
                areas, bases, self.target.memory, "rdpid" in flags and tid_offset is not None
            ),
            tid_offset=tid_offset,
            xstate_mask=xstate_mask(flags),
            xsavec="xsavec" in flags,
        )

    def clear_rseq(self, low: int, high: int) -> None:
        """Make every thread forget an rseq section whose descriptor lies in low..high.

        A thread whose rip is inside the section must not be there (the caller has proof).
        """
        self.clear_rseqs([(low, high)])

    def clear_rseqs(self, spans: Sequence[tuple[int, int]]) -> None:
        """The same for several spans (low, high), with one look at each thread."""
        for thread in list(self.stop.threads.values()):
            area = ptrace.rseq_configuration(thread.tid)
            if area is None:
                continue
            named = int.from_bytes(self.target.memory.read_some(area.area + 8, 8), "little")
            if any(low <= named < high for low, high in spans):
                self.target.memory.write_u64(area.area + 8, 0)

    def rips(self) -> list[int]:
        """Where code goes on: of all threads, and of what their signal frames interrupted."""
        threads = [t.regs.rip for t in self.stop.threads.values()]
        return threads + [frame.rip for frame in self.frames]

    def stacks_lead_into(
        self, spans: Sequence[tuple[int, int]], but: Callable[[], Sequence[tuple[int, int]]]
    ) -> bool:
        """Whether a word on the used part of any stack lies in a span (low, high). A stack is
        searched to the end of what adjoins it, where memory of ours may lie: `but()` tells it."""
        return self._stacks.lead_into(spans, but)

    def move(self, moves: dict[int, int]) -> int:
        """Let threads and interrupted contexts go on at moves[rip] where rip is a key.

        Registers reach the kernel at once.  Returns how many were moved.
        """
        count = 0
        for thread in self.stop.threads.values():
            if thread.regs.rip in moves:
                thread.regs.rip = moves[thread.regs.rip]
                thread.changed = True
                count += 1
        for frame in self.frames:
            if frame.rip in moves:
                self.target.memory.write_u64(frame.rip_address, moves[frame.rip])
                count += 1
        self.stop.flush()
        return count


class Target:
    """A process that fentry works on; close() gives its descriptor back.

    Raises TargetGone, AttachError, BadInput before anything is touched. `is_ours` says that nobody
    but fentry waits for its end; that of another child of this process stays to be waited for.
    """

    def __init__(self, pid: int, *, max_stop_s: float = MAX_STOP_S, is_ours: bool = False) -> None:
        self.pid = pid
        self.max_stop_s = max_stop_s
        self.stop_durations_ns: list[int] = []
        self.exit_status: int | None = None
        self._held: Stop | None = None
        self._maps: Sequence[Mapping] = ()  # before the stop
        self._holder = 0
        self._stragglers: list[Stop] = []
        # Processes that are known to stop it shortly, as we do: asked when one is in our way.
        self.others: Callable[[], Collection[int]] = frozenset
        _check(pid)
        stat = read_stat(pid)
        self.start_time = stat.start_time
        self._is_child = stat.parent_pid == os.getpid() and not is_ours
        prepare_stubs()
        self.memory = Memory(pid)
        try:
            self.room = find_room(read_maps(pid), self.memory)
        except BaseException:
            self.memory.close()
            raise

    def close(self) -> None:
        """Give the descriptor of the memory back, when no thread is left with us."""
        deadline = time.monotonic() + _VFORK_LIMIT_S
        while self._stragglers and time.monotonic() < deadline:
            self.settle()
            time.sleep(_SWEEP_PAUSE_S)
        self.memory.close()

    @contextmanager
    def stopped(self, *, held: int = 0, bounded: bool = True) -> Iterator[Halt]:
        """All threads stopped; they run again when the block is left, however it is left.

        Inside another such block it is the same stop.  `held` is a thread that is a stopped
        tracee of ours already (a command that was started, and has not begun).  A stop that is
        not `bounded`, or of such a one, may last longer than the target's `max_stop_s`.
        """
        if self._held is not None:
            self.refuse_other_thread()
            yield Halt(self, self._held, self._maps)
            return
        self.settle()
        if not self.stop_durations_ns:  # the first stop: later ones need no look
            refuse_frozen(self.pid)
        self._refuse_shared_memory()
        bounded = bounded and not held
        stop = Stop(
            self.pid,
            max_stop_s=self.max_stop_s,
            held=held,
            bounded=bounded,
            friends=self.others,
            is_child=self._is_child,
        )
        self._holder = threading.get_ident()
        self._maps = ()
        with suppress(TargetGone, PermissionError):  # the stop says why, and asks for those of then
            self._maps = read_maps(self.pid)
        with (
            nullcontext() if held else guard().holding(),
            deferred_signals(),
            nullcontext() if held else _no_collection(),
        ):
            try:
                with stop:
                    if not self.memory.is_alive():
                        raise TargetGone(
                            f"process {self.pid} replaced itself by exec", cause="a new image runs"
                        )
                    self._held = stop
                    yield Halt(self, stop, self._maps)
            finally:
                self._held = None
                if stop.duration_ns:
                    self.stop_durations_ns.append(stop.duration_ns)
                self._note_end(stop)
                if stop.has_stragglers:
                    self._stragglers.append(stop)

    def refuse_other_thread(self) -> None:
        """Raise LockError for a thread of ours that did not stop the target: the kernel would not
        let it go for that one."""
        if self._held is not None and self._holder != threading.get_ident():
            raise LockError(
                f"process {self.pid} is stopped by another thread of this process",
                cause="only the thread that stopped it may let it go",
            )

    def settle(self) -> None:
        """Let go threads that could not be stopped in time and have stopped since.

        To be called now and then while stragglers may exist; every stop calls it first.
        """
        for stop in list(self._stragglers):
            if stop.settle():
                self._stragglers.remove(stop)
            self._note_end(stop)

    def _note_end(self, stop: Stop) -> None:
        if stop.exit_status is not None:
            self.exit_status = stop.exit_status

    def _refuse_shared_memory(self) -> None:
        # A process made by clone(CLONE_VM) runs the same text, and we do not stop it. Vfork
        # children need no look here: their parent cannot be stopped while they share its memory.
        limit = time.monotonic() + _VFORK_LIMIT_S
        sharers = sharers_of(self.pid)
        while sharers and time.monotonic() < limit:
            time.sleep(_SWEEP_PAUSE_S)  # most likely vfork children: gone in no time
            sharers &= sharers_of(self.pid)  # each of them, not a moment without any
        if sharers:
            raise AttachError(
                f"process {min(sharers)} shares the memory of {self.pid} and runs",
                cause="made by clone(CLONE_VM) without CLONE_THREAD, or vfork",
                remedy="try again when it is gone",
            )

    def sweep(self) -> None:
        """Remove what a controller left that died in the middle of a system call of the target."""
        deadline = time.monotonic() + _SWEEP_LIMIT_S
        while any(room_is_used(self.memory, m) for m in read_maps(self.pid)):
            with self.stopped() as halt:
                if sweep_room(halt.maps, self.memory, halt.rips()):
                    return
            if time.monotonic() > deadline:
                raise AttachError(
                    f"a thread of {self.pid} stays in the stub of a controller that died",
                    cause="it was stopped there by a signal",
                    remedy="let it run, and try again",
                )
            time.sleep(_SWEEP_PAUSE_S)  # the thread needs the processor to put itself back

    def is_alive(self) -> bool:
        """Whether the address space still has a process."""
        return self.memory.is_alive()

    def is_ending(self) -> bool:
        """Whether the process has no memory any more: neither the one that we opened nor one
        that an exec gave it."""
        try:
            return not read_maps(self.pid)
        except TargetGone:
            return True


def _check(pid: int) -> None:
    if pid <= 0:
        raise BadInput(f"{pid} is no process id")
    if pid == os.getpid():
        raise BadInput(
            "fentry cannot attach to itself",
            cause="who stops a process by ptrace(2) has to go on meanwhile",
            remedy="what is to be traced in a process of its own: fentry.run([...]), or Popen",
        )
    if not list_tids(pid):
        raise TargetGone(f"no process {pid}", remedy="pgrep NAME finds a pid")
    status = read_status(pid)
    if status.tgid != pid:
        raise BadInput(
            f"{pid} is a thread of process {status.tgid}", remedy=f"fentry ... -p {status.tgid}"
        )
    if status.shadow_stack:
        raise AttachError(
            f"cannot attach to {pid} ({status.name}): it runs with a shadow stack",
            cause="calls that fentry moves would be taken for an attack",
            remedy="start it without (GLIBC_TUNABLES)",
        )
    if read_stat(pid).is_kernel_thread:
        raise AttachError(f"{pid} ({status.name}) has no memory", cause="a kernel thread")
    if all(is_dead(pid, tid) for tid in list_tids(pid)):
        parent = read_stat(pid).parent_pid
        raise TargetGone(
            f"process {pid} ({status.name}) is a zombie",
            cause=f"it has exited; process {parent} ({command_of(parent)}) has yet to wait for it",
        )
    try:
        with open(f"{living(pid)}/exe", "rb") as file:
            head = file.read(20)
    except PermissionError as error:
        raise refusal(pid, pid, error) from error
    except FileNotFoundError:
        return  # it is ending: its maps will tell
    if head[:5] != _ELF64 or int.from_bytes(head[18:20], "little") != _X86_64:
        raise AttachError(
            f"cannot attach to {pid} ({status.name}): not a 64-bit x86 program",
            cause="fentry traces x86-64 programs only",
        )


def sharers_of(pid: int) -> set[int]:
    """Running children that share the memory of `pid`: changing text under them is not safe."""
    return {child for child in children_of(pid) if ptrace.share_memory(pid, child)}


@contextmanager
def _no_collection() -> Iterator[None]:
    # Looking for cycles among all that is known of 100,000 functions takes tens of milliseconds.
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@cache
def cpu_flags() -> frozenset[str]:
    """The flags of the first processor, from /proc/cpuinfo."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("flags"):
                return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def xstate_mask(flags: frozenset[str]) -> int:
    """Vector and x87 state that programs have here, as XCR0 numbers it (SDM Vol. 1, 13.1).

    The kernel takes flags away from /proc/cpuinfo whose state it does not enable.  Left out is
    what compiled code does not touch by itself: protection keys, tiles, bounds.
    """
    if "xsave" not in flags:
        return 0
    mask = X87 | SSE
    if "avx" in flags:
        mask |= AVX
    if "avx512f" in flags:
        mask |= AVX512
    return mask


def _auxv_word(pid: int, kind: int) -> int:
    with open(f"{living(pid)}/auxv", "rb") as file:
        words = file.read()
    for i in range(0, len(words) - 15, 16):
        if int.from_bytes(words[i : i + 8], "little") == kind:
            return int.from_bytes(words[i + 8 : i + 16], "little")
    return 0


def _rseq_offset(
    areas: Sequence[ptrace.RseqConfiguration | None],
    bases: list[int],
    memory: Memory,
    may_begin: bool,
) -> int | None:
    # One offset from the thread pointer that holds for every thread, registered or not.
    # `may_begin`: all threads are libc's, and generated code compares the CPU of the area with
    # that of the processor. glibc registers the area in its struct pthread before a new thread
    # runs anybody's code (start_thread, nptl/pthread_create.c), and until then it holds zeros
    # or what a former thread left there.
    offsets = {a.area - base for a, base in zip(areas, bases, strict=True) if a and base}
    if (
        len(offsets) != 1
        or not all(bases)
        or len(set(bases)) < len(bases)
        or any(a and a.signature != 0x53053053 for a in areas)
    ):
        return None
    offset = offsets.pop()
    for area, base in zip(areas, bases, strict=True):
        if area is None and base and not (may_begin and 0 <= offset < _PTHREAD_BYTES):
            cpu_id = memory.read_some(base + offset + 4, 4)
            if len(cpu_id) < 4 or int.from_bytes(cpu_id, "little", signed=True) >= 0:
                return None
    return offset if -(1 << 31) <= offset < 1 << 31 else None


def _tid_offset(tids: list[int], bases: list[int], memory: Memory) -> int | None:
    # Where every control block holds the tid of a thread whose block it is: a bare clone(2) may
    # run on that of another one.
    owners: dict[int, list[bytes]] = {}
    for tid, base in zip(tids, bases, strict=True):
        if base:
            owners.setdefault(base, []).append(tid.to_bytes(4, "little"))
    blocks = {base: memory.read_some(base, _TCB_BYTES) for base in owners}
    for offset in _TID_OFFSETS:
        if owners and all(blocks[b][offset : offset + 4] in tids for b, tids in owners.items()):
            return offset
    return None
