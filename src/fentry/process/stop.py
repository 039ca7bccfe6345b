"""All threads of a target stopped, for a bounded time; leaving lets them run as if nothing was.

Being tracer of the lowest live thread is the lock between controllers: ptrace allows one tracer,
and the kernel drops it with its holder (docs/design/attaching.md).
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from fentry.errors import AttachError, LockError, StopTimeout, TargetGone
from fentry.process import ptrace, undertaker, wait
from fentry.process.gates import refusal
from fentry.process.hurry import Hurry
from fentry.process.proc import (
    command_of,
    list_tids,
    read_stat,
    running,
    status_number,
)
from fentry.process.restart import kept_restartable

OPTIONS = ptrace.PTRACE_O_TRACECLONE | ptrace.PTRACE_O_TRACESYSGOOD

MAX_STOP_S = 1.0
LIMIT_S = 10.0
LOCK_LIMIT_S = 5.0
OTHERS_LIMIT_S = 1.5  # a debugger stays; a program that uses fentry lets go in MAX_STOP_S

USER_CS = 0x33  # 64-bit user code segment: arch/x86/include/asm/segment.h

_SPIN_S = 0.0003
_LONGEST_PAUSE_S = 0.001
_EXEC_S = 0.05
_REFUSED_S = 0.1
_MOST_REFUSALS = 20
_BURIAL_S = 0.05
_ASLEEP_S = 0.05
_MOST_ATTEMPTS = 3  # on a machine that is busy just now
_LEAST_OF_A_THREAD_S = 0.000_02  # to interrupt one and let it go, on the fastest machine seen


@dataclass(slots=True)
class Thread:
    """A stopped thread and the registers it will run on with."""

    tid: int
    regs: ptrace.Regs
    changed: bool = False


class Stop:
    """Context manager: inside, every thread that runs code of `pid` is stopped.

    `threads` maps tid to Thread.  `duration_ns` is the time from the first interruption to the
    last release, 0 before.  Raises LockError, AttachError, TargetGone, StopTimeout; then nothing
    of the target is changed and all its threads run.

    A stop that would last longer than `max_stop_s` is refused, before it begins where the number
    of threads tells, else as soon as it shows; one that is not `bounded`, to restore the target,
    goes on.  `friends` tells processes whose stops are short: they are waited for longer.
    """

    def __init__(
        self,
        pid: int,
        *,
        max_stop_s: float = MAX_STOP_S,
        limit_s: float = LIMIT_S,
        held: int = 0,
        bounded: bool = True,
        friends: Callable[[], Collection[int]] = frozenset,
        is_child: bool = False,
    ) -> None:
        self.pid = pid
        self._friends = friends
        self._is_child = is_child  # of ours, and its end for others of this process
        self.max_stop_s = max_stop_s
        self.bounded = bounded
        self.limit_s = limit_s
        self.threads: dict[int, Thread] = {}
        self.duration_ns = 0
        self._seized: set[int] = set()
        self._stopped: set[int] = set()
        self._began_ns = 0
        self._stopping_s = 0.0
        self._hurry = Hurry(wanted=not held)  # who is held has not begun: nobody waits
        self.exit_status: int | None = None
        self._is_idle = False  # the machine, just before
        self._filtered: set[int] = set()
        self._looked_at: set[int] = set()
        self._met, self._met_at = 0, 0.0  # the last other tracer that was in the way, since when
        self._is_upset = False
        self._dying: set[int] = set()
        self._members: set[int] = set()  # the threads of the process, when all of them stood
        if held:
            ptrace.set_options(held, OPTIONS)
            self._seized.add(held)
            self._stopped.add(held)

    def __enter__(self) -> Stop:
        try:
            if not self._seized:
                self._refuse_many()
                self._await_wakefulness(time.monotonic() + self.limit_s)
            self._take_lock()
            self._stop_all()
        except BaseException:
            self._is_upset = True
            self.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_upset |= error is not None
        self.release()

    # 1. The lock

    def _take_lock(self) -> None:
        if self._seized:
            return
        began = time.monotonic()
        while True:
            tids = list_tids(self.pid)
            if not tids:
                raise TargetGone(f"no process {self.pid}", remedy="pgrep NAME finds a pid")
            try:
                with undertaker.watching(self.pid):
                    if any(self._seize(tid) for tid in tids):
                        return
            except LockError:
                # To restore, everybody is waited for: a controller that is leaving has no name.
                stays = self._holder_stays(tids) and self.bounded
                if stays or time.monotonic() > began + LOCK_LIMIT_S:
                    raise
                time.sleep(_LONGEST_PAUSE_S)  # another controller: its stops are short
                continue
            if time.monotonic() > began + _EXEC_S:  # else it may be in the middle of an exec
                raise TargetGone(f"process {self.pid} has no live thread", cause="it is a zombie")
            time.sleep(_LONGEST_PAUSE_S)

    def _holder_stays(self, tids: list[int]) -> bool:
        # Whether one and the same tracer, and no fentry that is known as such, is met for long. Of
        # several programs that use fentry, each lets go soon, though one or another may be met.
        holder = self._holder(tids)
        if holder != self._met:
            self._met, self._met_at = holder, time.monotonic()
        if not holder or time.monotonic() <= self._met_at + OTHERS_LIMIT_S:
            return False
        return "fentry" not in command_of(holder) and holder not in self._friends()

    def _holder(self, tids: list[int]) -> int:
        # Who traces a thread of the target; 0 if it was let go meanwhile.
        for tid in tids:
            tracer = self._tracer_of(tid)
            if tracer not in (0, os.getpid(), threading.get_native_id()):
                return tracer
        return 0

    def _seize(self, tid: int) -> bool:
        # True when `tid` is ours now; False for dead threads and kernel workers. Refused without
        # a tracer to be seen, it is in the middle of an exec, ending, or was let go just now.
        deadline, attempts = time.monotonic() + _REFUSED_S, 0
        while True:
            attempts += 1
            try:
                stat = read_stat(self.pid, tid)
            except TargetGone:
                return False
            if stat.is_dead or stat.is_kernel_worker:
                return False
            try:
                ptrace.seize(tid, OPTIONS)
                break
            except OSError as error:
                if error.errno == errno.ESRCH or self.is_dead(tid):
                    return False
                if self._is_ours(tid):  # born of a thread of ours: the kernel seized it
                    break
                tracer = self._tracer_of(tid)
                # More than once: on a busy machine one look may take as long as all of them.
                is_late = attempts > _MOST_REFUSALS and time.monotonic() > deadline
                if tracer or is_late:
                    raise refusal(self.pid, tid, error, tracer) from error
            time.sleep(_LONGEST_PAUSE_S)
        self._seized.add(tid)
        self._dying.discard(tid)
        return True

    def _is_ours(self, tid: int) -> bool:
        return self._tracer_of(tid) in (os.getpid(), threading.get_native_id())

    def _tracer_of(self, tid: int) -> int:
        try:
            return status_number(self.pid, tid, b"TracerPid")
        except TargetGone:
            return 0

    def _state(self, tid: int) -> str:
        try:
            return read_stat(self.pid, tid).state
        except TargetGone:
            return "X"

    def is_dead(self, tid: int) -> bool:
        """Whether a thread of the target is a zombie or gone."""
        try:
            return read_stat(self.pid, tid).is_dead
        except TargetGone:
            return True

    # 2. The stop

    def _await_wakefulness(self, limit: float) -> None:
        # Nobody is seized while a thread sleeps uninterruptibly (a vfork parent, slow storage):
        # what cannot be stopped could not be let go, either. Each one is awaited, not a moment
        # without any: others may sleep by then, as shortly.
        sleepers = self._sleepers()
        while sleepers and time.monotonic() < limit:
            time.sleep(_LONGEST_PAUSE_S)
            sleepers &= self._sleepers()
        if sleepers:
            raise self._timeout(min(sleepers))

    def _sleepers(self) -> set[int]:
        found = set()
        for tid in list_tids(self.pid):
            try:
                stat = read_stat(self.pid, tid)
            except TargetGone:
                continue
            if stat.state == "D" and not stat.is_kernel_worker:
                found.add(tid)
        return found

    def _timeout(self, tid: int) -> StopTimeout:
        return StopTimeout(
            f"cannot stop process {self.pid}: thread {tid} did not stop in {self.limit_s:g} s",
            cause=self._why_slow(tid),
            remedy="try again when it has left that state, or a longer --max-stop",
        )

    def _refuse_many(self) -> None:
        count = len(list_tids(self.pid))
        least_s = count * _LEAST_OF_A_THREAD_S
        if self.bounded and least_s > self.max_stop_s:
            raise StopTimeout(
                f"cannot stop process {self.pid}: its {count:,} threads take at least "
                f"{least_s * 1e3:.0f} ms",
                cause=f"no stop may be longer than {self.max_stop_s * 1e3:g} ms",
                remedy="a longer --max-stop",
            )

    def refuse_if_late(self) -> None:
        """Raise StopTimeout where letting all threads go, which takes as long as stopping them,
        would make the stop longer than it may be. To be called before anything is changed."""
        if self._is_late():
            spent_s = (time.monotonic_ns() - self._began_ns) / 1e9
            raise StopTimeout(
                f"cannot change process {self.pid}: its {len(self.threads):,} threads have stood "
                f"{spent_s * 1e3:.0f} ms by now",
                cause=f"no stop may be longer than {self.max_stop_s * 1e3:g} ms",
                remedy="a longer --max-stop, or try again when the machine is less busy",
            )

    def _is_late(self) -> bool:
        spent_s = (time.monotonic_ns() - self._began_ns) / 1e9
        return self.bounded and spent_s + self._stopping_s > self.max_stop_s

    def _stop_all(self) -> None:
        limit = time.monotonic() + self.limit_s
        attempt = 0
        while True:
            if not self._seize_all(limit):
                continue
            self._is_idle = running() <= (os.cpu_count() or 1)
            self._hurry.begin()
            self._began_ns = time.monotonic_ns()
            slow = self._interrupt_all()
            if slow is None:
                self._read_registers()
                self._stopping_s = (time.monotonic_ns() - self._began_ns) / 1e9
                attempt += 1
                if attempt == _MOST_ATTEMPTS or not self._is_late():
                    break
            self._release_stopped()
            self._hurry.end()  # who is waited for needs the processor
            if slow is not None and time.monotonic() > limit:
                raise self._timeout(slow)
            self._await_slow(limit)
            self._take_lock()
        self.refuse_if_late()

    def _seize_all(self, limit: float) -> bool:
        # Before anybody is stopped. Another controller lets its threads go one after the other:
        # whoever meets one that is still held begins again.
        try:
            self._seize_new(list_tids(self.pid))
        except LockError:
            if self._holder_stays(list_tids(self.pid)) or time.monotonic() > limit:
                raise
            self._release_running()
            time.sleep(_LONGEST_PAUSE_S)
            self._take_lock()
            return False
        self._note_filters()
        return True

    def _release_running(self) -> None:
        # Seized and not yet asked to stop: they have to, to be let go.
        for tid in list(self._seized - self._stopped):
            self._interrupt(tid)
        self._await_stops(time.monotonic() + self.max_stop_s)
        self._release_stopped()

    def _note_filters(self) -> None:
        # Filters belong to threads (seccomp(2)); looked at before the stop, for all at once.
        for tid in self._seized - self._looked_at:
            try:
                if status_number(self.pid, tid, b"Seccomp"):
                    self._filtered.add(tid)
            except TargetGone:
                continue
            self._looked_at.add(tid)

    def is_filtered(self, tid: int) -> bool:
        """Whether a thread runs under seccomp."""
        if tid in self._looked_at:
            return tid in self._filtered
        try:
            return status_number(self.pid, tid, b"Seccomp") != 0
        except TargetGone:
            return False

    def _seize_new(self, tids: Iterable[int]) -> list[int]:
        strangers = [tid for tid in tids if tid not in self._seized]
        if not strangers:
            return []
        with undertaker.watching(self.pid):
            return [tid for tid in strangers if self._seize(tid)]

    def _interrupt_all(self) -> int | None:
        # None when all threads are stopped, else one that did not stop within max_stop_s.
        # The last listing must hold nobody who was not known before it: a thread that is found
        # dead may have made another one that the same listing does not show. And it must be
        # whole: the kernel cuts one short when the thread it stands at dies (next_tid(),
        # fs/proc/base.c).
        deadline = time.monotonic() + self.max_stop_s / (2 if self.bounded else 1)
        fresh: Iterable[int] = list(self._seized - self._stopped)
        passed: set[int] = set()
        while True:
            for tid in fresh:
                self._interrupt(tid)
            slow = self._await_stops(deadline)
            if slow is not None:
                return slow
            tids = set(list_tids(self.pid))
            known = self._seized | passed
            fresh = self._seize_new(tids)
            passed = tids - self._seized
            settled = not fresh and tids <= known and self._seized == self._stopped
            if settled and len(tids) >= self._thread_count():
                self._members = tids
                break
            if time.monotonic() > deadline:
                return min(tids, default=self.pid)
        if not self._stopped:
            raise TargetGone(f"process {self.pid} is gone", cause="it ended while being stopped")
        return None

    def _thread_count(self) -> int:
        try:
            return read_stat(self.pid, self.pid).threads
        except TargetGone:
            return 0

    def _interrupt(self, tid: int) -> None:
        try:
            ptrace.interrupt(tid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            self._forget(tid)

    def _await_stops(self, deadline: float) -> int | None:
        # Before all others we would spin on the processor that a thread needs to stop.
        spin_until = time.monotonic() + (0.0 if self._hurry.is_on else _SPIN_S)
        asleep_by = time.monotonic() + _ASLEEP_S
        pause_s = 0.00005
        may_yield = self._hurry.is_on and self._is_idle
        while waiting := self._seized - self._stopped:
            if any([self._poll(tid) for tid in waiting]):
                continue
            now = time.monotonic()
            if now > deadline:
                self._bury_dead()
                left = self._seized - self._stopped
                return min(left) if left else None
            if now < spin_until:
                os.sched_yield()
            elif may_yield:  # the last ones wait for our processor: a sleep takes longer than they
                may_yield = False
                self._hurry.let_others()
            else:
                if pause_s >= _LONGEST_PAUSE_S:
                    self._bury_dead()
                    for tid in waiting if now > asleep_by else ():
                        if self._state(tid) == "D":
                            return tid  # a vfork parent by now: others need not wait for it
                time.sleep(pause_s)  # waitpid(2) has no time limit: poll, ever more slowly
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return None

    def _bury_dead(self) -> None:
        # A dead tracee stays until its tracer has waited for it, and an exec of the process waits
        # for that as well (de_thread, fs/exec.c): also for those that were stopped.
        for tid in list(self._seized):
            if self.is_dead(tid):
                self._poll(tid)
                self._forget(tid)
        for tid in self._dying - self._seized:
            if self._is_reaped(tid):
                self._dying.discard(tid)

    def _poll(self, tid: int) -> bool:
        # Whether something happened to the thread.
        try:
            found, status = self.poll(tid)
        except ChildProcessError:
            self._is_upset = True
            self._forget(tid)
            return True
        if not found:
            return False
        if os.WIFSTOPPED(status):
            self._on_stop(tid, status)
        else:
            self.note_end(tid, status)
            self._forget(tid)
        return True

    def _on_stop(self, tid: int, status: int) -> None:
        event = status >> 16
        if event == ptrace.PTRACE_EVENT_STOP:
            self._stopped.add(tid)
            return
        if event == ptrace.PTRACE_EVENT_CLONE:
            self._adopt_born(ptrace.event_message(tid))
        signal = 0 if event else os.WSTOPSIG(status)
        try:  # every ptrace stop uses up a pending interruption: ask again before letting go
            ptrace.interrupt(tid)
            ptrace.cont(tid, signal)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            self._forget(tid)

    def _adopt_born(self, tid: int) -> None:
        # The kernel seized it for us with the same options, and it stops by itself.
        self._seized.add(tid)

    def _forget(self, tid: int) -> None:
        if tid in self._seized:
            self._dying.add(tid)
        self._seized.discard(tid)
        self._stopped.discard(tid)
        self.threads.pop(tid, None)

    def _lose(self, tid: int) -> None:
        # Not stopped although it was: dead, or exec gave its tid to another thread, which runs
        # and is ours.
        self._is_upset = True
        self._stopped.discard(tid)
        if self.is_dead(tid) or not self._is_ours(tid):
            self._forget(tid)

    def _why_slow(self, tid: int) -> str:
        try:
            state = read_stat(self.pid, tid).state
        except TargetGone:
            return "it vanished"
        if state == "D":
            return (
                "it sleeps uninterruptibly: a vfork parent waiting for its child, or slow storage"
            )
        return f"it is in state {state} on a busy machine"

    def _await_slow(self, limit: float) -> None:
        # Whoever has not stopped yet stops as soon as it can, and is let go at once: nobody waits
        # for the slowest.
        while self._seized and time.monotonic() < limit:
            if not any([self._poll(tid) for tid in list(self._seized - self._stopped)]):
                self._bury_dead()
                time.sleep(_LONGEST_PAUSE_S)
            self._release_stopped()

    def _read_registers(self) -> None:
        for tid in sorted(self._stopped):
            if tid not in self._members:  # born by clone without CLONE_THREAD: another process
                self._detach(tid)
                continue
            try:
                regs = ptrace.get_regs(tid)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    self._lose(tid)
                    continue
                raise AttachError(
                    f"cannot read the registers of thread {tid}: {error.strerror}",
                    cause="32-bit code" if error.errno == errno.ENOEXEC else "",
                ) from error
            if regs.cs != USER_CS and regs.rip:
                raise AttachError(
                    f"thread {tid} of process {self.pid} runs 32-bit code",
                    cause="fentry traces 64-bit x86 programs only",
                )
            self.threads[tid] = Thread(tid, regs)
        for thread in self.threads.values():
            if kept_restartable(self.pid, thread.tid, thread.regs, self.is_filtered):
                thread.changed = True
        self.flush()
        if self._seized - self._stopped:  # an exec by another thread took over a stopped tid
            raise TargetGone(f"process {self.pid} replaced itself by exec", cause="during the stop")
        if not self.threads:
            raise TargetGone(f"process {self.pid} is gone", cause="it ended while being stopped")

    # 3. Letting go

    def flush(self) -> None:
        """Give the threads the registers that were changed."""
        for thread in list(self.threads.values()):
            if thread.changed:
                try:
                    ptrace.set_regs(thread.tid, thread.regs)
                except OSError as error:
                    if error.errno != errno.ESRCH:
                        raise
                    self._forget(thread.tid)
                thread.changed = False

    def poll(self, tid: int) -> tuple[int, int]:
        """What happened to a thread, as wait.poll() says it."""
        return wait.poll(tid, is_child=self._is_child and tid == self.pid)

    def note_end(self, tid: int, status: int) -> None:
        """Keep the wait status of the process itself: who started it as a command wants it."""
        if tid == self.pid:
            self.exit_status = status

    def forget(self, tid: int) -> None:
        """Drop a thread that has died."""
        self._forget(tid)

    def release(self) -> None:
        """Let every thread run. Threads that have not stopped yet are let go when they do."""
        try:
            self._release()
        finally:
            self._hurry.end()

    def _release(self) -> None:
        self.flush()
        self._release_stopped()
        self._note_duration()
        self._find_lost()
        while left := self._seized - self._stopped:
            for tid in left:
                self._interrupt(tid)
            slow = self._await_stops(time.monotonic() + self.max_stop_s)
            self._release_stopped()
            if slow is not None:
                break  # in the kernel for long: settle() lets it go when it comes back
            self._find_lost()
        self._note_duration(whole=True)
        self._await_burials()

    def _note_duration(self, *, whole: bool = False) -> None:
        # When nobody stands any more; what died in our hands does not stand.
        if self._began_ns and (whole or not self._seized):
            self.duration_ns = time.monotonic_ns() - self._began_ns
            self._began_ns = 0

    def _await_burials(self) -> None:
        # Who dies in our hands is mostly dead in no time; nobody else waits for this.
        limit = time.monotonic() + _BURIAL_S
        while self._dying and time.monotonic() < limit:
            self._bury_dead()
            time.sleep(_LONGEST_PAUSE_S / 4)

    def _find_lost(self) -> None:
        # After an exec in our hands threads may be ours that we have never heard of: born of one
        # whose stop we took for another.
        for tid in list_tids(self.pid) if self._is_upset else ():
            if tid not in self._seized and self._is_ours(tid):
                (self._dying if self.is_dead(tid) else self._seized).add(tid)
        self._bury_dead()

    @property
    def has_stragglers(self) -> bool:
        """Whether a thread is left that has not stopped yet and so could not be let go, or that
        is dying in our hands: until we have waited for it, its exec or its parent waits."""
        return bool(self._seized or self._dying)

    def settle(self) -> bool:
        """Let go what has stopped since; whether nobody is left."""
        for tid in list(self._seized - self._stopped):
            self._poll(tid)
        self._bury_dead()
        self._release_stopped()
        return not self.has_stragglers

    def _release_stopped(self) -> None:
        for tid in sorted(self._stopped, reverse=True):  # the lock, the lowest one, last
            self._detach(tid)
        self.threads.clear()

    def _detach(self, tid: int) -> None:
        if tid not in self.threads:  # let go early: its call must not see the stop, either
            with suppress(OSError):  # it is dead, or in 32-bit code: let go as it is
                regs = ptrace.get_regs(tid)
                if kept_restartable(self.pid, tid, regs, self.is_filtered):
                    ptrace.set_regs(tid, regs)
        try:
            ptrace.detach(tid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            self._forget(tid)  # to be waited for
            return
        self._seized.discard(tid)
        self._stopped.discard(tid)
        self.threads.pop(tid, None)

    def _is_reaped(self, tid: int) -> bool:
        # Whether nothing of a thread that was in our hands is left with us: it was let go, or has
        # died and we have waited for it. A command that we started is our child as well.
        try:
            found, status = self.poll(tid)
        except ChildProcessError:
            return True
        if not found:
            return not self._is_ours(tid)
        if os.WIFSTOPPED(status):  # not dead: an exec gave its tid to another thread of ours
            self._seized.add(tid)
            self._on_stop(tid, status)
        else:
            self.note_end(tid, status)
        return True
