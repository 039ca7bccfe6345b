"""What a session has in its target for itself: the region, our row in it, the ids that are ours."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from fentry.dispatch.followed import Followed
from fentry.dispatch.ops_rows import OpsRows
from fentry.dispatch.turns import Turns
from fentry.errors import FentryError, LockError
from fentry.process.shared import SharedMemory
from fentry.process.target import Target
from fentry.region import layout as region_layout
from fentry.region.inherited import identity_of
from fentry.region.layout import State
from fentry.region.owners import ID_BLOCK, Owner
from fentry.region.region import Region


class Place:
    """Where we are in a target; region, owner and rows are there from own() on.

    `switches` is the memory by which children are silenced, `followed` the children, where forks
    are followed; `is_held` tells of a command that has not begun, and ends with an error here.
    """

    region: Region
    owner: Owner
    rows: OpsRows

    def __init__(self, target: Target, turns: Turns, *, is_held: bool) -> None:
        self.target = target
        self.turns = turns
        self.is_held = is_held
        self.switches: SharedMemory | None = None
        self.followed: Followed | None = None
        self.ids: deque[int] = deque()
        self._is_taken = False

    @property
    def pid(self) -> int:
        """The process."""
        return self.target.pid

    def own(self, region: Region, owner: Owner) -> None:
        """Inside a stop: the row of the registry is ours from now on."""
        self.region, self.owner, self._is_taken = region, owner, True
        self.turns.join(region, owner)
        self.rows = OpsRows(region.registry, owner.number)
        self.ids.extend(region.owners.take_ids())

    def give_up(self) -> None:
        """What was made or taken over is nobody's, though this process goes on."""
        with suppress(FentryError):
            if self._is_taken and self.region.owners.holds(self.owner):
                self.region.owners.disown(self.owner)

    def refill_ids(self) -> None:
        """Inside a stop: there are ids left for the next ops."""
        if len(self.ids) < ID_BLOCK // 2:
            self.ids.extend(self.region.owners.take_ids())

    def sweep(self) -> None:
        """Another controller may have died in the middle of a system call of the target."""
        if len(self.region.owners.every) > 1:
            self.target.sweep()

    # Others

    def was_detached(self) -> bool:
        """Whether another controller has removed or taken the region."""
        try:
            return not self.region.owners.holds(self.owner)
        except FentryError:
            return True

    def is_alone(self) -> bool:
        """Nobody else lives that is at work here, and no ops of a dead one are there to be
        adopted."""
        if any(one.number != self.owner.number for one in self.region.owners.living):
            return False
        rows = self.region.registry.ops
        return not ((rows["state"] == State.LIVE) & (rows["owner"] != self.owner.number)).any()

    def refuse_company(self, what: str) -> None:
        """Raises LockError unless we are alone."""
        if not self.is_alone():
            raise LockError(
                f"{what}: process {self.pid} is traced by another fentry as well",
                cause="its ops would see nothing",
                remedy=f"fentry status -p {self.pid}",
            )

    # Children

    def follow_children(self) -> None:
        """From now on, where the region says that they are followed."""
        if self.region.follow is not None and (identity := identity_of(self.region)) is not None:
            self.followed = Followed(identity, self.pid)

    def end_children(self, before: int | None = None) -> None:
        """Put children back: all, or those forked before this generation."""
        if self.followed is not None:
            self.followed.end(before=before)

    def silence(self) -> None:
        """Whoever was forked and cannot be put back records no more; all others from one moment
        on."""
        if self.switches is not None:
            self.switches.bytes[:8] = 0
            self.switches.bytes[region_layout.rooms_span()] = 0
