"""Ops: a registered user of functions (the kernel's struct ftrace_ops)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.threads import ThreadFilter

NOTRACE = "--"  # between the words of the filter and those of notrace


class Callback(IntEnum):
    """What a call does for an ops."""

    RECORD = 1
    COUNT = 2


class Flags(IntFlag):
    """FTRACE_OPS_FL_* (include/linux/ftrace.h) as far as they exist here."""

    NONE = 0
    PID = 1 << 13  # it filters threads


@dataclass(eq=False, slots=True)
class Ops:
    """A callback, the functions it wants (filter) and refuses (notrace): words of
    symbols/patterns.py.

    `instance` is the number of that it records into, 0 the top one.
    An empty filter wants every function.  `id` is given at registration, 0 before.  `members` is
    bool[n] over the sites of the target, filled in at registration.  `threads` are those whose
    calls it sees, all by default.
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

    @property
    def text(self) -> str:
        """Filter and notrace in one line, as `status` shows them; split_words() reads it."""
        words = (*(self.filter or ("*",)), *((NOTRACE, *self.notrace) if self.notrace else ()))
        return " ".join(w if w == NOTRACE or _is_plain(w) else shlex.quote(w) for w in words)


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
