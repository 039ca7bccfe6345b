"""Whether what we have in a target is ours still, and whether another controller has changed
anything since we looked: asked and answered inside a stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fentry.dispatch import adoption
from fentry.dispatch.controllers import Outdated
from fentry.errors import LockError, PatchError
from fentry.process.gather import Evidence
from fentry.process.target import Halt, Target
from fentry.region.layout import SiteState
from fentry.region.owners import Owner
from fentry.region.region import Region


class Ownership:
    """One controller's place in a target.

    `generation` is that of the registry when we looked last: odd while a change is made, and -1
    when we looked in the middle of one.  `stale` are numbers of rows of sites whose module is gone:
    the next change forgets them.
    """

    def __init__(self, target: Target, region: Region, owner: Owner) -> None:
        self._target = target
        self._region = region
        self._owner = owner
        self.generation = int(region.registry.header["generation"])
        self.stale: list[int] = []

    @contextmanager
    def owned(
        self, *, current: bool = True, bounded: bool = True, evidence: Evidence | None = None
    ) -> Iterator[Halt]:
        """The target stopped, and what we have in it still ours: only here may it be written.

        Raises LockError when another controller took it; Outdated, if the caller relies on what
        is known of sites and code to be `current`, when another one has changed something. Neither
        is asked where `evidence` of both still holds.
        """
        with self._target.stopped(bounded=bounded) as halt:
            if evidence is not None and evidence.holds():
                yield halt
                return
            generation = self.check(current=False)
            if generation % 2 and generation != self.generation:
                # Somebody died in the middle of a change: nobody is at it now.
                generation = self._region.registry.end_change(generation)
            if current:
                self._refuse_outdated(generation)
            yield halt

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Inside a stop: others have to look again at what is in the target."""
        registry = self._region.registry
        self.generation = registry.begin_change(self.generation)
        try:
            self._forget_stale()
            yield
        finally:
            self.generation = registry.end_change(self.generation)

    def check(self, *, current: bool = True, head: bytes | None = None) -> int:
        """Raise LockError when what we have in the target is not ours any more, Outdated when it is
        not `current`, what we know of it; the generation. As the registry's `head` says, if it has
        been read."""
        owners = self._region.owners
        try:
            if head is None:
                generation = owners.generation_of(self._owner)
            else:
                generation = owners.generation_in(head, self._owner)
        except PatchError as error:
            raise LockError(
                f"process {self._target.pid} is no longer traced",
                cause="another controller detached it",
            ) from error
        if generation is None:
            every = owners.every
            taker = [o for o in every if o.number == self._owner.number and o.pid]
            raise LockError(
                f"process {self._target.pid} is no longer ours",
                cause=f"{taker[0].text} took it over"
                if taker
                else "another controller detached it",
            )
        if current:
            self._refuse_outdated(generation)
        return generation

    def is_current(self) -> bool:
        """Whether nobody else has changed anything since."""
        return int(self._region.registry.header["generation"]) == self.generation

    def _refuse_outdated(self, generation: int) -> None:
        if generation != self.generation:
            raise Outdated(
                f"process {self._target.pid} is changed by another controller all the time",
                cause="every change came too late",
                remedy="try again",
            )

    def _forget_stale(self) -> None:
        if not self.stale:
            return
        rows = self._region.registry.sites
        # Of a library that we do not know of yet, but another controller, the text is ours.
        ours = adoption.lead_to_us(self._target.memory, self._region, rows[self.stale])
        rows["state"][self.stale] = SiteState.GONE
        for number in np.array(self.stale)[~ours].tolist():
            self._region.registry.write_sites(number, rows[number : number + 1])
        self.stale = []
