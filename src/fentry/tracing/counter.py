"""Counting: exact numbers of calls, by name, while a block runs."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from types import TracebackType
from typing import Self

from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.threads import ThreadFilter
from fentry.errors import BadInput, FentryError, TargetGone
from fentry.session import Session, attach
from fentry.tracing.counts import Counts
from fentry.tracing.functions import Function
from fentry.tracing.live import follow, is_over, traced_functions, wait
from fentry.tracing.table import words_of


class Counting(Mapping[str, int]):
    """Made by counting(): how often functions were called since its block was entered, until it was
    left. A mapping as Counts is, and of the same words; while it runs, of this moment.

        with fentry.counting(pid, "f") as calls:
            ...
        assert calls["f"] == 2

    Nothing is recorded and nothing can be lost: every call adds one in the target.
    """

    def __init__(self, session: Session | int, ops: Ops) -> None:
        self.ops = ops
        self._given = session
        self._session: Session | None = None
        self._counts: Counts | None = None

    # 1. Beginning and end

    def start(self) -> Self:
        """Count from now on; what entering the block does. Raises BadInput if it did already, as
        attach(), and as Session.register(); then nothing changed."""
        if self._session is not None:
            raise BadInput("this has been started already", remedy="fentry.counting() again")
        session = self._given if isinstance(self._given, Session) else attach(self._given)
        try:
            session.register(self.ops)
        except BaseException:
            if session is not self._given:
                session.close()
            raise
        self._session = session
        return self

    def stop(self) -> None:
        """Restore, and keep the counts; what leaving the block does. Safe to call again. Raises as
        Session.unregister(); then it goes on, and it may be tried again."""
        session = self._session
        if session is None or self._counts is not None:
            return
        functions = traced_functions(session, self.ops)
        if session is self._given:
            self._unregister(session)
            self._counts = self._counted(session, functions)
            return
        session.leave()  # where it fails nothing is closed, and it may be tried again
        self._counts = self._counted(session, functions)
        session.close()

    def _unregister(self, session: Session) -> None:
        # Of a target that is gone nothing is restored.
        try:
            if session.ops.get(self.ops.id) is self.ops:
                session.unregister(self.ops)
        except FentryError as error:
            if not isinstance(error, TargetGone) and not is_over(session):
                raise

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except FentryError as problem:
            if error is None:
                raise
            error.add_note(f"fentry: {problem}")

    def wait(self, seconds: float | None = None) -> str:
        """Let the target run for so long, or until it ends; why it is over, in words. Libraries
        that are loaded meanwhile are counted, too."""
        return wait(self._begun, seconds)

    @property
    def has_ended(self) -> bool:
        """Whether it counted and counts no more."""
        return self._counts is not None

    # 2. The counts

    def counts(self) -> Counts:
        """The counts up to now."""
        if self._counts is not None:
            return self._counts
        session = self._begun
        follow(session)
        return self._counted(session, traced_functions(session, self.ops))

    def __getitem__(self, word: str) -> int:
        return self.counts()[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self.counts())

    def __len__(self) -> int:
        return len(self.counts())

    def items(self) -> ItemsView[str, int]:
        """The functions that were called, and how often: of one moment."""
        return self.counts().items()

    def values(self) -> ValuesView[int]:
        """How often the functions were called that were."""
        return self.counts().values()

    def __eq__(self, other: object) -> bool:
        return self.counts() == other

    __hash__ = None  # type: ignore[assignment]  # as that of other mappings that change

    @property
    def total(self) -> int:
        """Calls of all functions."""
        return self.counts().total

    def __repr__(self) -> str:
        return (
            f"<Counting {self.ops.text!r}: not started>"
            if self._session is None
            else repr(self.counts())
        )

    def __str__(self) -> str:
        return repr(self) if self._session is None else str(self.counts())

    def _repr_html_(self) -> str:
        return "" if self._session is None else self.counts()._repr_html_()

    @property
    def _begun(self) -> Session:
        if self._session is None:
            raise BadInput("this has not been started", remedy="with fentry.counting(...)")
        return self._session

    def _counted(self, session: Session, functions: Sequence[Function]) -> Counts:
        ips, calls = session.counts(self.ops)
        by_ip = dict(zip(ips.tolist(), calls.tolist(), strict=True))
        return Counts(functions, [by_ip.get(function.ip, 0) for function in functions])


def counting(
    process: Session | int,
    *functions: str,
    exclude: Sequence[str] | str = (),
    threads: ThreadFilter | None = None,
) -> Counting:
    """Counts calls of `functions` but for `exclude`, words of filters (all, if there are none), of
    a session's process, or of process `process`, which is attached to for the time of the block.

        with fentry.counting(child.pid, "libc!malloc", "f_*") as calls:
            ...
        print(calls["malloc"], calls)

    Entering raises as attach() and Session.register(): SymbolNotFound with near names, and
    BadInput for the process that asks: nobody can stop himself by ptrace(2).
    """
    ops = Ops(Callback.COUNT, functions, words_of(exclude), threads=threads or ThreadFilter())
    return Counting(process, ops)
