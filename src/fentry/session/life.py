"""Whether something is left to see: the process, its children, and what was attached to."""

from __future__ import annotations

import os
import select

from fentry.dispatch.detach import region_is_unused
from fentry.session.place import Place


class Life:
    """What Session's methods of the same names tell; holds a descriptor until close()."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._target = place.target
        self.pidfd = os.pidfd_open(place.pid)

    def close(self) -> bool:
        """Give the descriptor back; whether there was one."""
        if self.pidfd < 0:
            return False
        os.close(self.pidfd)
        self.pidfd = -1
        return True

    def has_writers(self) -> bool:
        """Whether anybody is left who may record."""
        followed = self._place.followed
        return self._target.is_alive() or (followed is not None and bool(followed.living))

    def nobody_writes(self) -> bool:
        """Proof that nobody is in the middle of a record that began before."""
        followed = self._place.followed
        if self._target.is_alive():
            with self._target.stopped() as halt:
                if not region_is_unused(halt, self._place.region):
                    return False
        return followed is None or followed.are_outside()

    def why_over(self) -> str:
        """Why nothing can be seen any more, in words for people; "" while it can."""
        why, followed = self._why_alone_over(), self._place.followed
        if why and followed is not None and not self.has_process():
            return "" if followed.any_left() else f"{why}, and no child is left"
        return why

    @property
    def wakeups(self) -> list[int]:
        """Descriptors that become readable when something ends; none that is so for ever."""
        return [] if self._place.followed is not None and self._has_ended() else [self.pidfd]

    def has_process(self) -> bool:
        """Whether the process itself still runs what was attached to."""
        return not self._has_ended() and self._target.is_alive()

    def _has_ended(self) -> bool:
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def _why_alone_over(self) -> str:
        if self._has_ended():
            return "the process ended"
        was_detached = self._place.was_detached()  # first: an exec in between is none
        if not self._target.is_alive():
            ending = self._target.is_ending()
            return "the process ended" if ending else "the process replaced itself by exec"
        return "another controller detached it" if was_detached else ""

    def exit_status(self) -> int:
        """Wait for a command that we started; as waitpid(2) gives it."""
        if self._target.exit_status is not None:
            return self._target.exit_status
        _, status = os.waitpid(self._place.pid, 0)
        return status
