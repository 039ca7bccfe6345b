"""Standard output that is written by a thread of its own: a reader that is slow, stopped or gone
keeps nobody else waiting, neither the housekeeping of a traced process nor Ctrl-C."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable

from fentry.errors import FentryError

_ROOM_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16  # in one system call, and up to the end of a line
_LOOK_S = 0.05


def stdout_fd() -> int:
    """The descriptor of standard output. Raises FentryError when it is closed."""
    if sys.stdout is None:
        raise FentryError("nothing can be printed", cause="standard output is closed")
    sys.stdout.flush()  # what is written past it comes later
    return sys.stdout.fileno()


class Outlet:
    """Lines on their way to descriptor `fd`, in order. `problem` is why no more can be written.

    has_room() is a promise to take one more text of any size. `signals` counts those that this
    process got: one more while the end is waited for, and it is waited no longer.
    """

    def __init__(self, fd: int, signals: Callable[[], int] = lambda: 0) -> None:
        self.problem: OSError | None = None
        self._fd = fd
        self._signals = signals
        self._is_given_up = False
        self._changed = threading.Condition()
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._bytes = 0
        self._events = 0
        self._hangup = select.poll()
        self._hangup.register(fd, 0)
        threading.Thread(target=self._run, name="outlet", daemon=True).start()

    def is_gone(self) -> bool:
        """Whether nothing can be written any more, also when nothing is to be written."""
        if self.problem is None and any(events for _, events in self._hangup.poll(0)):
            self.problem = BrokenPipeError("the reader is gone")
        return self.problem is not None

    def has_room(self) -> bool:
        """Whether it takes a text now."""
        return self._bytes < _ROOM_BYTES and self.problem is None

    def is_idle(self) -> bool:
        """Whether all that it took is written."""
        return self._bytes == 0 and self.problem is None

    def put(self, text: bytes | memoryview, *, events: int = 0) -> None:
        """Take a text of whole lines; each of them is an event, or with `events` 0 none."""
        with self._changed:
            self._waiting.append((bytes(text), events > 0))
            self._bytes += len(text)
            self._changed.notify_all()

    def await_room(self) -> bool:
        """Wait until it takes a text; False when it never will again, or a person gave up."""
        return self._await(self.has_room)

    def finish(self) -> int:
        """Wait until all is written, it cannot be, or a person gave up; the number of events that
        have been written."""
        self._await(lambda: self._bytes == 0)
        with self._changed:
            return self._events

    def _await(self, holds: Callable[[], bool]) -> bool:
        before = self._signals()
        while not holds():
            self._is_given_up = self._is_given_up or self._signals() > before
            if self.is_gone() or self._is_given_up:
                return False
            with self._changed:
                if not holds():
                    self._changed.wait(_LOOK_S)
        return True

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                text, are_events = self._waiting.popleft()
            try:
                self._write(text, are_events)
            except OSError as error:
                with self._changed:
                    self.problem = self.problem or error
                    self._changed.notify_all()
                return

    def _write(self, text: bytes, are_events: bool) -> None:
        start = 0
        while start < len(text):
            end = text.rfind(b"\n", start, start + _PIECE_BYTES) + 1 or start + _PIECE_BYTES
            try:
                written = os.write(self._fd, memoryview(text)[start:end])
            except BlockingIOError:  # whoever shares it does not want to wait
                select.select([], [self._fd], [])
                continue
            with self._changed:
                if are_events:
                    self._events += text.count(b"\n", start, start + written)
                self._bytes -= written
                self._changed.notify_all()
            start += written
