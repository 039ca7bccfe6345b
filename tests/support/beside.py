"""Controllers that run beside the test and each other, and are spoken to.

with beside(account, controller, target) as one:      # controller(line, target)
    assert one.hear() == "attached"                   # what it told
    one.say("go on")                                  # what its line.hear() returns
    one.kill()                                        # SIGKILL, at this moment
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.support.unprivileged import PATIENCE_S, Account, ChildFailed, ChildTimeout

_LENGTH = struct.Struct("<I")
_FAILED = "failed"


class Line:
    """One end of a talk between two processes; values must pickle."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def say(self, value: Any = None) -> None:
        """Tell the other side a value; nothing happens when it is gone."""
        packed = pickle.dumps(value)
        with suppress(BrokenPipeError):  # who listens will find out
            self._end.sendall(_LENGTH.pack(len(packed)) + packed)

    def hear(self, seconds: float = PATIENCE_S) -> Any:
        """The next value that the other side tells. Raises ChildTimeout, EOFError."""
        deadline = time.monotonic() + seconds
        (count,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        return pickle.loads(self._read(count, deadline))

    def has_news(self) -> bool:
        """Whether something was told that nobody heard."""
        return bool(select.select([self._end], [], [], 0)[0])

    def close(self) -> None:
        """Hang up."""
        self._end.close()

    def _read(self, count: int, deadline: float) -> bytes:
        data = b""
        while len(data) < count:
            left = deadline - time.monotonic()
            if not select.select([self._end], [], [], max(0.0, left))[0]:
                raise ChildTimeout("the other side says nothing")
            piece = self._end.recv(count - len(data))
            if not piece:
                raise EOFError("the other side has hung up")
            data += piece
        return data


class Beside:
    """A controller in a process of its own."""

    def __init__(self, pid: int, line: Line) -> None:
        self.pid = pid
        self._line = line
        self._is_gone = False

    def say(self, value: Any = None) -> None:
        """Tell it something."""
        self._line.say(value)

    def hear(self, seconds: float = PATIENCE_S) -> Any:
        """The next thing that it tells. Raises ChildFailed when it raised or died."""
        try:
            told = self._line.hear(seconds)
        except EOFError as error:
            raise ChildFailed("the controller ended") from error
        if isinstance(told, tuple) and told[:1] == (_FAILED,):
            raise ChildFailed(told[1])
        return told

    def ask(self, value: Any = None, seconds: float = PATIENCE_S) -> Any:
        """Tell it something and hear what it answers."""
        self.say(value)
        return self.hear(seconds)

    def has_news(self) -> bool:
        """Whether it told something that was not heard yet."""
        return self._line.has_news()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if not self._is_gone:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._is_gone = True

    def close(self) -> None:
        """Kill it if it runs still."""
        self.kill()
        self._line.close()


@contextmanager
def beside(account: Account, function: Callable[..., object], *arguments: Any) -> Iterator[Beside]:
    """`function(line, *arguments)` at work in a forked process that is `account`; at the end it is
    killed unless it has ended."""
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        ours.close()
        line = Line(theirs)
        try:
            account.become()
            function(line, *arguments)
        except BaseException:  # the child must never return into the test
            line.say((_FAILED, traceback.format_exc()))
        finally:
            os._exit(0)
    theirs.close()
    one = Beside(pid, Line(ours))
    try:
        yield one
    finally:
        one.close()
