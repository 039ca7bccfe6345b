"""The whole screen of a terminal, borrowed: whatever happens, it is given back as it was."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from fentry.cli.outlet import Outlet

# ECMA-48 control functions, and DEC private modes as xterm has them (ctlseqs): 1049 is the
# alternate screen, 25 the cursor.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
_LEAVE = b"\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_END_OF_LINE = "\x1b[K"
_END_OF_SCREEN = "\x1b[J"
_SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[@-~]|O.|.)?")


def is_terminal() -> bool:
    """Whether standard output can show a screen."""
    return bool(sys.stdout and sys.stdout.isatty()) and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """Full screen on the descriptor of `outlet`, keys from standard input if that is a terminal.

    Use as a context manager. Ctrl-C stays a signal; after Ctrl-Z, which gives the terminal back
    while this process is stopped, and after SIGWINCH `is_changed` is True.
    """

    def __init__(self, outlet: Outlet, fd: int) -> None:
        self.is_changed = False
        self._outlet = outlet
        self._fd = fd
        self._input = 0 if os.isatty(0) else -1
        self._modes: list[int | list[bytes | int]] = []
        self._is_stopping = False
        self._handlers: dict[int, object] = {}

    @property
    def fds(self) -> list[int]:
        """Descriptors that become readable when a key is pressed."""
        return [self._input] if self._input >= 0 else []

    def __enter__(self) -> Screen:
        self._take()
        for number in (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT):
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() returned
        self._give_back()

    def size(self) -> tuple[int, int]:
        """Columns and lines, never 0."""
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24

    def show(self, lines: Sequence[str]) -> bool:
        """Show these lines from the top; False where the last ones are still on their way."""
        if not self._outlet.is_idle():
            return False
        self.is_changed = False
        text = _HOME + "\r\n".join(line + _END_OF_LINE for line in lines) + _END_OF_SCREEN
        self._outlet.put(text.encode(sys.stdout.encoding or "ascii", "replace"))
        return True

    def pressed(self) -> str:
        """The keys that were pressed, but for those that send more than one character."""
        if self._input < 0 or not select.select([self._input], [], [], 0)[0]:
            return ""
        try:
            pressed = os.read(self._input, 1024).decode("utf-8", "replace")
        except OSError:  # it has hung up; a signal says so
            pressed = ""
        if not pressed:
            self._input = -1
        return _SEQUENCE.sub("", pressed)

    def stop_if_told(self) -> None:
        """After Ctrl-Z: stop, with the terminal as it was, and take it again afterwards."""
        if self._is_stopping:
            self._is_stopping = False
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()

    def _on_signal(self, number: int, frame: object) -> None:
        self._is_stopping = self._is_stopping or number == signal.SIGTSTP
        self.is_changed = True

    def _take(self) -> None:
        if self._input >= 0:
            self._modes = termios.tcgetattr(self._input)
            changed = termios.tcgetattr(self._input)
            local = changed[3]
            assert isinstance(local, int)
            changed[3] = local & ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(self._input, termios.TCSANOW, changed)
        self._outlet.put(_ENTER)
        self.is_changed = True

    def _give_back(self) -> None:
        self._outlet.put(_LEAVE)
        self._outlet.finish()
        if self._modes:
            with suppress(termios.error):  # of one that has hung up
                termios.tcsetattr(0, termios.TCSANOW, self._modes)
