"""How to attach: the options of a session, and what of them makes no sense."""

from __future__ import annotations

from dataclasses import dataclass

from fentry.errors import BadInput
from fentry.process.proc import possible_cpus
from fentry.process.stop import MAX_STOP_S
from fentry.ring.buffer import Geometry
from fentry.ring.clock import clock_number
from fentry.ring.layout import MODE_DISCARD

BUFFER_BYTES = 8 << 20
SETS, LIST = "sets", "list"


@dataclass(frozen=True, slots=True)
class Options:
    """How to attach: bytes of ring a CPU, mode of a full ring, record size, longest stop; whether
    functions call exactly their `sets` of ops, or all of them one `list` (docs/design/list.md);
    whether children that the process forks are traced as well (docs/design/forks.md); what a record
    is dated by, "tsc" or "percpu-counter"."""

    buffer_bytes: int = BUFFER_BYTES
    mode: int = MODE_DISCARD
    record_bytes: int = 24
    max_stop_s: float = MAX_STOP_S
    dispatch: str = SETS
    follow_forks: bool = False
    clock: str = "tsc"

    def refuse_unknown_dispatch(self) -> None:
        """Raises BadInput for a way to dispatch that there is not."""
        if self.dispatch not in (SETS, LIST):
            raise BadInput(f"{self.dispatch!r} is no way to dispatch: {SETS} or {LIST}")

    def geometry(self) -> Geometry:
        """The ring that they ask for. Raises BadInput where they make no sense."""
        return Geometry.for_bytes(
            self.buffer_bytes, possible_cpus(), self.record_bytes, self.mode,
            clock_number(self.clock),
        )  # fmt: skip


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
