"""Ops: a registered user of functions (the kernel's struct ftrace_ops)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.threads import ThreadFilter
from fentry.errors import BadInput

if TYPE_CHECKING:
    from fentry.trampolines.native import CFunction

NOTRACE = "--"  # between the words of the filter and those of notrace


class Callback(IntEnum):
    """What a call does for an ops."""

    RECORD = 1
    COUNT = 2
    CALL = 3
    DIRECT = 4


class Flags(IntFlag):
    """FTRACE_OPS_FL_* (include/linux/ftrace.h) as far as they exist here, with the kernel's bits.

    All but PID, PERMANENT and DIRECT are for Callback.CALL.  SAVE_REGS: vectors are saved, so that
    the function can read and use them.  IPMODIFY: what it writes into its regs takes effect, also
    ip; one such ops a function.  RECURSION: it is not called while it runs already, see
    docs/design/callbacks.md.  PERMANENT: nobody but their owner takes them away, see
    docs/design/permanent.md.  DIRECT: the ops of Callback.DIRECT have it.
    """

    NONE = 0
    SAVE_REGS = 1 << 2
    RECURSION = 1 << 4
    IPMODIFY = 1 << 12
    PID = 1 << 13  # it filters threads
    PERMANENT = 1 << 16
    DIRECT = 1 << 17


@dataclass(eq=False, slots=True)
class Ops:
    """A callback, the functions it wants (filter) and refuses (notrace): words of
    symbols/patterns.py.

    `instance` is the number of that it records into, 0 the top one.
    An empty filter wants every function.  `id` is given at registration, 0 before.  `members` is
    bool[n] over the sites of the target, filled in at registration.  `threads` are those whose
    calls it sees, all by default.  `function` is what CALL calls, or a DirectCode,
    what DIRECT does; `private` what op->private points to at first.
    """

    callback: Callback
    filter: tuple[str, ...] = ()
    notrace: tuple[str, ...] = ()
    flags: Flags = Flags.NONE
    id: int = 0
    slot: int = 0
    instance: int = 0
    members: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    threads: ThreadFilter = field(default_factory=ThreadFilter)
    function: CFunction | None = None
    private: bytes = b""

    def __post_init__(self) -> None:
        if self.callback is Callback.DIRECT:
            self.flags |= Flags.DIRECT

    @property
    def redirects(self) -> bool:
        """Whether it may change registers and where the program goes on; one such ops a function,
        the last that runs."""
        return bool(self.flags & (Flags.IPMODIFY | Flags.DIRECT))

    @property
    def text(self) -> str:
        """Filter and notrace in one line, as `status` shows them; split_words() reads it."""
        words = (*(self.filter or ("*",)), *((NOTRACE, *self.notrace) if self.notrace else ()))
        return " ".join(w if w == NOTRACE or _is_plain(w) else shlex.quote(w) for w in words)


def refuse_flags(ops: Ops) -> None:
    """Raise BadInput if callback, function and flags of ops do not go together."""
    if (ops.callback is Callback.DIRECT) is not (Flags.DIRECT in ops.flags):
        raise BadInput("Flags.DIRECT and Callback.DIRECT go together")
    if ops.callback is Callback.DIRECT:
        _refuse_direct(ops)
        return
    if ops.callback is not Callback.CALL:
        if ops.flags & ~(Flags.PID | Flags.PERMANENT) or ops.function is not None:
            raise BadInput("flags and a function are for Callback.CALL")
        return
    if ops.function is None or ops.function.is_direct:
        raise BadInput("Callback.CALL needs a function", remedy="CFunction.compile(source)")
    if ops.redirects and Flags.SAVE_REGS not in ops.flags:
        raise BadInput("IPMODIFY needs SAVE_REGS")
    refuse_open_redirect(ops)
    if ops.function.traits.leaves and Flags.RECURSION not in ops.flags:
        raise BadInput(
            f"{ops.function.name} calls through pointers and has no guard",
            cause="if it comes to a traced function, it calls itself without end",
            remedy="Flags.RECURSION",
        )


def _refuse_direct(ops: Ops) -> None:
    if ops.flags & ~(Flags.DIRECT | Flags.PERMANENT):
        raise BadInput("of the flags only PERMANENT is for Callback.DIRECT")
    if ops.function is None or not ops.function.is_direct:
        raise BadInput("Callback.DIRECT needs code", remedy="DirectCode.assemble(source)")
    if ops.private:
        raise BadInput("Callback.DIRECT has no private memory", remedy=".data in its source")
    refuse_filtered_direct(ops, ops.threads)
    refuse_open_redirect(ops)


def refuse_filtered_direct(ops: Ops, threads: ThreadFilter) -> None:
    """Raise BadInput for DIRECT ops that are to see some threads only."""
    if ops.callback is Callback.DIRECT and threads:
        raise BadInput(
            "thread filters are not for Callback.DIRECT",
            cause="sites call its code with nothing in between",
            remedy="the code may look itself",
        )


def refuse_open_redirect(ops: Ops) -> None:
    """Raise BadInput for ops with IPMODIFY or DIRECT and an empty filter, which wants every
    function."""
    if ops.redirects and not ops.filter:
        word = "DIRECT" if ops.callback is Callback.DIRECT else "IPMODIFY"
        raise BadInput(f"{word} needs a filter", cause="an empty one wants every function")


def _is_plain(word: str) -> bool:
    return bool(word) and not any(letter.isspace() or letter in "'\"\\" for letter in word)


def split_words(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(filter, notrace) of the text of an ops."""
    try:
        words = shlex.split(text)
    except ValueError:  # it was cut off inside of a quoted word
        words = text.split()
    at = words.index(NOTRACE) if NOTRACE in words else len(words)
    return tuple(words[:at]), tuple(words[at + 1 :])
