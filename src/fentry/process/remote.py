"""System calls made by the target itself, in one of its stopped threads.

Nothing of the target is used but the registers of that thread and the zero bytes behind the
vDSO's image; see process/stub.py for what happens when this process dies in between.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence

from fentry.errors import AttachError, FentryError, TargetGone
from fentry.process import ptrace
from fentry.process.maps import Mapping, read_maps
from fentry.process.memory import Memory
from fentry.process.proc import read_status
from fentry.process.restart import MASKED_CALLS, is_waiting
from fentry.process.stop import OPTIONS, Stop, Thread
from fentry.process.stub import MAX_CALLS, SIGNATURE, Call, build_stub, entry_regs, stub_bytes

ALL_SIGNALS = (1 << 64) - 1

ROOM_BYTES = 1216  # the longest stub: MAX_CALLS calls
_SYSCALL_STOP = 0x80 | 5  # SIGTRAP with PTRACE_O_TRACESYSGOOD

OnResult = Callable[[int, int], bool]


class RemoteError(FentryError, OSError):
    """A system call of the target failed: `number` is its errno, `results` those before it."""

    exit_code = 9

    def __init__(self, call: Call, number: int, results: Sequence[int]) -> None:
        self.results = results
        super().__init__(
            f"the target's {call.name or call.number} failed: {os.strerror(number)}",
            cause="a limit of the target (memory, address space, descriptors)",
            remedy="fentry doctor -p PID; a smaller buffer (-m)",
        )
        self.number = number


def find_room(maps: Sequence[Mapping], memory: Memory, *, clean: bool = False) -> int:
    """Address of ROOM_BYTES zero bytes of executable memory that no code reaches; unless it is to
    be `clean`, the stub of a controller that died may still be there.

    They lie behind the image of the vDSO (its file size, rounded up to a page, is mapped), or
    behind the text of a module, in the last page of a private executable mapping.
    """
    candidates = [m for m in maps if _may_lend(m)]
    candidates.sort(key=lambda m: m.path != "[vdso]")
    for mapping in candidates:
        room = mapping.end - ROOM_BYTES
        tail = memory.read_some(room - 16, ROOM_BYTES + 16)
        if tail == bytes(ROOM_BYTES + 16) or (not clean and tail[16:].startswith(SIGNATURE)):
            return room
    if not any(mapping.inode for mapping in candidates):
        raise TargetGone("the target has no program mapped", cause="it is in the middle of an exec")
    raise AttachError(
        "no room in the target for the code that maps memory",
        cause="no vDSO and no executable mapping that ends in zero bytes",
    )


def rooms_in_files(maps: Sequence[Mapping]) -> list[int]:
    """Where stubs may have been besides the vDSO: addresses of ROOM_BYTES in mapped files."""
    return [m.end - ROOM_BYTES for m in maps if _may_lend(m) and m.inode]


def room_is_used(memory: Memory, mapping: Mapping) -> bool:
    """Whether a stub lies at the end of an executable mapping."""
    return mapping.perms.startswith("r-x") and _is_stub(memory, mapping.end - ROOM_BYTES)


def _is_stub(memory: Memory, room: int) -> bool:
    return memory.read_some(room, len(SIGNATURE)) == SIGNATURE


def _may_lend(mapping: Mapping) -> bool:
    # Not memory of our own making, and nothing shared: others would see the stub.
    return mapping.perms == "r-xp" and (bool(mapping.inode) or mapping.path == "[vdso]")


def sweep_room(maps: Sequence[Mapping], memory: Memory, rips: Sequence[int]) -> bool:
    """Remove a stub that a dead controller left; False while a thread still runs it.

    `rips` are where the code of the target goes on, below signal handlers as well.
    """
    for mapping in maps:
        if not _may_lend(mapping):
            continue
        address = mapping.end - ROOM_BYTES
        if not _is_stub(memory, address):
            continue
        if any(address <= rip < mapping.end for rip in rips):
            return False
        memory.write(address, bytes(ROOM_BYTES))
    return True


class Remote:
    """Makes system calls in the target while `stop` holds all its threads."""

    def __init__(self, stop: Stop, memory: Memory, room: int) -> None:
        self._stop = stop
        self._memory = memory
        self._room = room
        self._running: set[int] = set()

    def uses(self, room: int) -> bool:
        """Whether calls are made from ROOM_BYTES at `room`, or somebody's stub lies there."""
        return room == self._room or _is_stub(self._memory, room)

    def run(
        self,
        calls: Sequence[Call],
        on_result: OnResult | None = None,
        *,
        thread: Thread | None = None,
    ) -> list[int]:
        """The results of `calls`, made in order by one thread: `thread`, or the fittest one.

        `on_result(i, result)` is called after each call while the target still stands there; if
        it returns False the remaining calls are not made.  Raises RemoteError for the first call
        that fails; the thread is put back in any case.
        """
        if len(calls) > MAX_CALLS or stub_bytes(calls) > ROOM_BYTES:
            raise ValueError("too many calls for one stub")
        # Unmapped, or a controller died meanwhile and a thread may still need what it left.
        if any(self._memory.read_some(self._room, ROOM_BYTES)):
            self._room = find_room(read_maps(self._stop.pid), self._memory, clean=True)
        thread = thread or self._choose()
        self._stop.flush()
        mask = ptrace.get_sigmask(thread.tid)
        regs = _outside_rseq(self._memory, thread)
        code, entry = build_stub(calls, regs, mask, self._room)
        options = self._options(thread)
        self._memory.write(self._room, code)
        try:
            ptrace.set_options(thread.tid, options)
            ptrace.set_regs(thread.tid, entry_regs(regs, entry))
            ptrace.set_sigmask(thread.tid, ALL_SIGNALS)
            try:
                return self._watch(thread.tid, calls, on_result)
            finally:
                self._put_back(thread, regs, mask)
        finally:
            if thread.tid not in self._running:  # else it still needs the stub
                self._memory.write(self._room, bytes(len(code)))

    def _options(self, thread: Thread) -> int:
        if read_status(self._stop.pid, thread.tid).seccomp == 0:
            return OPTIONS
        options = OPTIONS | ptrace.PTRACE_O_SUSPEND_SECCOMP
        try:
            ptrace.set_options(thread.tid, options)
        except OSError as error:
            raise AttachError(
                f"cannot make system calls in process {self._stop.pid}: it runs under seccomp",
                cause="its filter might kill it, and suspending the filter needs CAP_SYS_ADMIN",
                remedy="run fentry as root",
            ) from error
        return options

    def _choose(self) -> Thread:
        # One that waits in no system call if there is one, and without a seccomp filter.
        def rank(thread: Thread) -> tuple[bool, bool, int, int]:
            waiting = 0 if not is_waiting(thread.regs) else 1
            if thread.regs.rax == (-516) & ALL_SIGNALS and waiting:
                waiting = 2
            if waiting and thread.regs.orig_rax in MASKED_CALLS:
                waiting = 3
            filtered = self._stop.is_filtered(thread.tid)
            return thread.regs.rip == 0, filtered, waiting, thread.tid

        for best in sorted(self._stop.threads.values(), key=rank):
            if best.regs.rip == 0:
                break
            if not ptrace.dispatches_syscalls(best.tid):
                return best
        else:
            raise AttachError(
                f"cannot make system calls in process {self._stop.pid}",
                cause="its threads get SIGSYS for them (syscall user dispatch)",
            )
        raise AttachError(f"process {self._stop.pid} has no thread that runs code")

    def _watch(self, tid: int, calls: Sequence[Call], on_result: OnResult | None) -> list[int]:
        results: list[int] = []
        for i, call in enumerate(calls):
            self._to_syscall_stop(tid)  # entry
            self._to_syscall_stop(tid)  # exit
            result = ptrace.get_regs(tid).rax
            if result > ALL_SIGNALS - 4095:
                raise RemoteError(call, -(result - (1 << 64)), results)
            results.append(result)
            if on_result is not None and not on_result(i, result):
                break
        return results

    def _to_syscall_stop(self, tid: int) -> None:
        signal = 0
        while True:
            ptrace.cont_to_syscall(tid, signal)
            status = self._await(tid)
            if os.WSTOPSIG(status) == _SYSCALL_STOP:
                return
            # A group stop or an interruption stays in force; a signal (SIGSTOP cannot be
            # blocked) is delivered.
            signal = 0 if status >> 16 else os.WSTOPSIG(status)

    def _await(self, tid: int) -> int:
        deadline = time.monotonic() + 10.0
        patience = time.monotonic() + 0.002
        while True:
            try:
                found, status = self._stop.poll(tid)
            except ChildProcessError as error:
                raise TargetGone(f"thread {tid} vanished") from error
            if found:
                if os.WIFSTOPPED(status):
                    return status
                self._stop.note_end(tid, status)
                self._stop.forget(tid)
                raise TargetGone(f"process {self._stop.pid} is gone", cause="it was killed")
            now = time.monotonic()
            if now > patience:  # a killed leader is reported only when its threads are reaped
                if self._stop.is_dead(tid):
                    self._stop.forget(tid)
                    raise TargetGone(f"process {self._stop.pid} is gone", cause="it was killed")
                patience = now + 0.005
            if now > deadline:
                raise TargetGone(f"thread {tid} does not come back from a system call")
            os.sched_yield()

    def _put_back(self, thread: Thread, regs: ptrace.Regs, mask: int) -> None:
        # First the mask: if we die between the two, the stub restores the rest.  Then one more
        # stop, so that the thread stands as the others do.
        tid = thread.tid
        self._running.add(tid)
        try:
            self._be_stopped(tid)
            ptrace.set_sigmask(tid, mask)
            ptrace.set_regs(tid, regs)
            ptrace.set_options(tid, OPTIONS)
            ptrace.interrupt(tid)
            ptrace.cont(tid)
            while True:
                status = self._await(tid)
                if status >> 16 == ptrace.PTRACE_EVENT_STOP:
                    break
                ptrace.interrupt(tid)
                ptrace.cont(tid, 0 if status >> 16 else os.WSTOPSIG(status))
            thread.regs = ptrace.get_regs(tid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            self._stop.forget(tid)
        except TargetGone:
            if not self._stop.is_dead(tid):
                return  # it may still be in its call: the stub stays for it
            self._stop.forget(tid)
        self._running.discard(tid)

    def _be_stopped(self, tid: int) -> None:
        # After an exception in the middle of a call the thread may be running.
        try:
            ptrace.get_regs(tid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            ptrace.interrupt(tid)
            self._await(tid)


def _outside_rseq(memory: Memory, thread: Thread) -> ptrace.Regs:
    # struct rseq: rseq_cs at offset 8; struct rseq_cs: version, flags, start_ip,
    # post_commit_offset, abort_ip (include/uapi/linux/rseq.h).
    regs = thread.regs.copy()
    area = ptrace.rseq_configuration(thread.tid)
    if area is None:
        return regs
    section = int.from_bytes(memory.read_some(area.area + 8, 8), "little")
    if not section:
        return regs
    words = memory.read_some(section, 32)
    if len(words) < 32:
        return regs
    start, length, abort = (int.from_bytes(words[i : i + 8], "little") for i in (8, 16, 24))
    if 0 <= regs.rip - start < length:
        regs.rip = abort
    return regs
