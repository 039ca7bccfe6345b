"""Several controllers of one process take turns (docs/design/controllers.md): who has the lock is
awaited, who was overtaken looks again, and who is overtaken often asks the others for a turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Protocol, TypeVar

from fentry.dispatch.controllers import Outdated
from fentry.errors import FentryError, LockError, PatchError
from fentry.process.maps import read_maps
from fentry.process.target import Halt, Target
from fentry.region.owners import Owner
from fentry.region.region import Region

TURN_LIMIT_S = 20.0  # for a change that other controllers' changes get in the way of
MANNERS_S = 0.5  # the longest that another one is given way, or awaited in the middle of a change
MOST_TRIES = 3  # before a turn is asked for
PAUSE_S = 0.001

T = TypeVar("T")


class Owned(Protocol):
    """Stops the target while what a controller has there is still its."""

    def __call__(self, *, current: bool = True) -> AbstractContextManager[Halt]: ...


class Turns:
    """One controller among others; `look_again` brings what it knows of the target up to date."""

    def __init__(self, target: Target, owned: Owned, look_again: Callable[[], None]) -> None:
        self._target = target
        self._owned = owned
        self._look_again = look_again
        self._region: Region | None = None
        self._number = 0
        self._has_asked = False

    def join(self, region: Region, owner: Owner) -> None:
        """From now on as this owner of a region."""
        self._region, self._number = region, owner.number

    def other_pids(self) -> set[int]:
        """Other controllers of the process, whose stops are short."""
        try:
            region = self._region
            if region is None:
                region = Region.open(self._target.memory, read_maps(self._target.pid))
            owners = region.owners.every if region is not None else []
        except FentryError:
            return set()
        return {one.pid for one in owners} - {os.getpid()}

    def patiently(self, step: Callable[[], T]) -> T:
        """What `step` returns. While another controller has the lock, also one that came a moment
        ago, it is awaited. Raises LockError in the end."""
        deadline = time.monotonic() + TURN_LIMIT_S
        while True:
            try:
                return step()
            except LockError as error:
                late = time.monotonic() > deadline
                if late or not error.holder or error.holder not in self.other_pids():
                    raise

    def retried(self, step: Callable[[], T]) -> T:
        """What `step` returns, when no other controller got in between. Raises Outdated in the
        end."""
        deadline, tries = time.monotonic() + TURN_LIMIT_S, 0
        self._give_way()
        try:
            while True:
                try:
                    return self.patiently(step)
                except Outdated:
                    tries += 1
                    if time.monotonic() > deadline:
                        raise
                if tries >= MOST_TRIES:
                    self.ask()
                self._look_again()
        finally:
            self.end()

    def ask(self) -> None:
        """Let the others wait a moment, until end()."""
        self._has_asked = True
        self._write(self._number)

    def end(self) -> None:
        """Nobody has to wait any more."""
        if self._has_asked:
            self._has_asked = False
            with suppress(FentryError):
                self._write(0)

    def _write(self, number: int) -> None:
        assert self._region is not None
        with self._owned(current=False):  # elsewhere the registry may be gone, and others' there
            self._region.registry.write_header(turn=number)

    def _give_way(self) -> None:
        # Another one has tried often: it gets its turn, for a moment.
        assert self._region is not None
        deadline = time.monotonic() + MANNERS_S
        registry = self._region.registry
        with suppress(PatchError):  # it is gone: what comes will tell
            while (turn := int(registry.header["turn"])) not in (0, self._number):
                living = {one.number for one in self._region.owners.living}
                if turn not in living or time.monotonic() > deadline:
                    return
                time.sleep(PAUSE_S)
