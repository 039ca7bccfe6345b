"""A session as people hold it in Python: fentry.session with traces, streams and counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self, overload

from fentry import session
from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.threads import ThreadFilter
from fentry.process.start import end, start
from fentry.ring.layout import MODE_DISCARD, MODE_OVERWRITE
from fentry.session import Options
from fentry.tracing.counter import Counting, counting
from fentry.tracing.live import let_go, wait
from fentry.tracing.stream import Stream, unfold_events, unfold_table
from fentry.tracing.table import Event, Table, words_of
from fentry.tracing.trace import MOST_EVENTS, Trace

_MOST_WAITING = 1_000_000  # events of a stream that nobody has asked for yet


class Session(session.Session):
    """fentry attached to one process; leaving the block detaches and restores everything but what
    PERMANENT ops need.

        with fentry.attach(pid) as session:
            with session.trace("libc!mem*") as trace:
                session.wait(1)
        print(trace.counts())
    """

    def __init__(
        self, pid: int, options: Options | None = None, *, held: int = 0, adopting: bool = False
    ) -> None:
        self._handles: list[Trace | Counting] = []
        super().__init__(pid, options, held=held, adopting=adopting)

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """End what is traced, leave, and give descriptors back. Counts and records can still be
        read afterwards."""
        try:
            for handle in self._handles:
                handle.stop()
        finally:
            try:
                super().close()
            finally:
                for handle in self._handles:  # of what could not be ended alone, the rest is read
                    handle.stop()

    def _keep(self, handle: Trace | Counting) -> None:
        self._handles = [*(one for one in self._handles if not one.has_ended), handle]

    def exit_code(self) -> int:
        """Wait for a command that run() started, which is let go if it is held; its exit code as a
        shell gives it: 128 + n when signal n killed it."""
        let_go(self)
        return super().exit_code()

    def wait(self, seconds: float | None = None) -> str:
        """Let the process run for so long, or until it ends; why it is over, in words ("time is
        up", "the process ended"). A command that is held is let go. Libraries that are loaded
        meanwhile are traced, too."""
        return wait(self, seconds)

    def trace(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        threads: ThreadFilter | None = None,
        parents: bool = True,
        overwrite: bool = False,
        buffer_bytes: int | None = None,
        clock: str | None = None,
        max_events: int = MOST_EVENTS,
    ) -> Trace:
        """Records the calls of `functions` but for `exclude`, words of filters (all functions, if
        there are none), while its block runs.

        `threads` are those whose calls it sees, all by default. Without `parents` records are of 16
        bytes and cost less. With `overwrite` the full ring forgets its oldest calls, and is not
        emptied meanwhile: a flight recorder. `buffer_bytes` of ring for each CPU and `clock` ("tsc"
        or "percpu-counter") are those of the session's options unless given. `max_events` are kept
        in memory.

        Entering it raises as register(): SymbolNotFound with near names.
        """
        options = replace(
            self.options,
            record_bytes=24 if parents else 16,
            mode=MODE_OVERWRITE if overwrite else MODE_DISCARD,
            buffer_bytes=buffer_bytes or self.options.buffer_bytes,
            clock=clock or self.options.clock,
        )
        ops = Ops(Callback.RECORD, functions, words_of(exclude), threads=threads or ThreadFilter())
        trace = Trace(self, ops, options, max_events)
        self._keep(trace)
        return trace

    def counting(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        threads: ThreadFilter | None = None,
    ) -> Counting:
        """As fentry.counting(), of this session's process."""
        made = counting(self, *functions, exclude=exclude, threads=threads)
        self._keep(made)
        return made

    @overload
    def stream(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        threads: ThreadFilter | None = None,
        duration: float | None = None,
        parents: bool = True,
        buffer_bytes: int | None = None,
        clock: str | None = None,
        batches: Literal[False] = False,
    ) -> Stream[Event]: ...
    @overload
    def stream(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        threads: ThreadFilter | None = None,
        duration: float | None = None,
        parents: bool = True,
        buffer_bytes: int | None = None,
        clock: str | None = None,
        batches: Literal[True],
    ) -> Stream[Table]: ...

    def stream(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        threads: ThreadFilter | None = None,
        duration: float | None = None,
        parents: bool = True,
        buffer_bytes: int | None = None,
        clock: str | None = None,
        batches: bool = False,
    ) -> Stream[Event] | Stream[Table]:
        """Traces functions, as trace(), and gives their calls as they happen, in order of time: as
        events or, with `batches`, as tables. What was given is not kept; when a million wait to be
        asked for, further calls fill the ring, and are counted as dropped.

        Ends after `duration` seconds, with the process, by close(), or when the loop over it is
        left. Raises as register().
        """
        trace = self.trace(
            *functions, exclude=exclude, threads=threads, parents=parents,
            buffer_bytes=buffer_bytes, clock=clock, max_events=_MOST_WAITING,
        ).start()  # fmt: skip
        tables = trace.tables(duration, keep=False)
        if batches:
            return Stream(tables, unfold_table, trace.stop)
        return Stream(tables, unfold_events, trace.stop)


def attach(pid: int, options: Options | None = None) -> Session:
    """Attach to a live process, beside other controllers that it may have. Raises TargetGone,
    AttachError, LockError, StopTimeout, and BadInput for the process that asks."""
    return Session(pid, options)


def adopt(pid: int, options: Options | None = None) -> Session:
    """Go on with what a dead controller left (fentry.session.adopt). Raises TargetGone when there
    is nothing to adopt, LockError when every controller lives."""
    return Session(pid, options, adopting=True)


def run(command: Sequence[str], options: Options | None = None) -> Session:
    """Start a command, held before its constructors run: release(), wait(), exit_code() and the
    first event of a stream let it go."""
    pid = start(command)
    try:
        return Session(pid, options, held=pid)
    except BaseException:
        end(pid)
        raise
