"""Ops: a registered user of functions (the kernel's struct ftrace_ops)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray


class Callback(IntEnum):
    """What a call does for an ops."""

    RECORD = 1
    COUNT = 2


class Flags(IntFlag):
    """FTRACE_OPS_FL_* (include/linux/ftrace.h) as far as they exist here."""

    NONE = 0


@dataclass(eq=False, slots=True)
class Ops:
    """A callback, the functions it wants (filter) and refuses (notrace), as glob patterns.

    An empty filter wants every function.  `id` is given at registration, 0 before.  `members` is
    bool[n] over the sites of the target, filled in at registration.
    """

    callback: Callback
    filter: tuple[str, ...] = ()
    notrace: tuple[str, ...] = ()
    flags: Flags = Flags.NONE
    id: int = 0
    slot: int = 0
    members: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    @property
    def text(self) -> str:
        """The filter in one line, as `status` shows it."""
        wanted = " ".join(self.filter) or "*"
        return wanted + "".join(f" !{pattern}" for pattern in self.notrace)
