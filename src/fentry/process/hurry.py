"""Real-time priority for as long as a target stands: its other threads must not run before us.

Between the first thread that is let go and the last one the target's own threads compete with us
for the processor, and those that still stand wait for whoever of them was faster: a hundred busy
threads on two processors stood for half a second, with this for 15 ms. sched(7): SCHED_FIFO needs
CAP_SYS_NICE or RLIMIT_RTPRIO; without it nothing is changed.
"""

from __future__ import annotations

import os
from contextlib import suppress

_LOWEST = 1


class Hurry:
    """begin() and end(), of the calling thread; both may be repeated, neither raises. `is_on`:
    whether it was allowed."""

    def __init__(self, *, wanted: bool = True) -> None:
        self._wanted = wanted
        self.is_on = False

    def begin(self) -> None:
        """Run before all threads of the usual kind, where that is allowed."""
        if not self._wanted or self.is_on or os.sched_getscheduler(0) != os.SCHED_OTHER:
            return
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_LOWEST))
            self.is_on = True

    def let_others(self) -> None:
        """Let who waits for this processor run once, and go on when it does not want it any more,
        or has had it for its time."""
        self.end()
        os.sched_yield()
        self.begin()

    def end(self) -> None:
        """Run as before."""
        if self.is_on:
            self.is_on = False
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
