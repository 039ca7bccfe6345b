"""Options that several commands share, and their units."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import click

from fentry.errors import BadInput

_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIMES = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0}


def parse_bytes(text: str) -> int:
    """A size like 64K, 4M, 1G or a number of bytes. Raises BadInput."""
    number, unit = _split(text)
    unit = unit.upper().removesuffix("B").removesuffix("I")
    if unit not in _SIZES or number <= 0:
        raise BadInput(f"{text!r} is no size", remedy="64K, 4M, 1G")
    return int(number * _SIZES[unit])


def parse_seconds(text: str) -> float:
    """A time like 200us, 10ms, 2s, 1m; a bare number is seconds. Raises BadInput."""
    number, unit = _split(text)
    if unit not in _TIMES or number <= 0:
        raise BadInput(f"{text!r} is no time", remedy="200us, 10ms, 2s")
    return number * _TIMES[unit]


def _split(text: str) -> tuple[float, str]:
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    try:
        return float(digits), text[len(digits) :]
    except ValueError:
        return 0.0, "?"


pid_option = click.option("-p", "--pid", type=int, help="The process.")
filter_option = click.option(
    "-F", "--filter", "wanted", multiple=True, metavar="GLOB",
    help="Functions to trace: a glob, or MODULE!GLOB. May be given again. Default: all.",
)  # fmt: skip
notrace_option = click.option(
    "-N", "--notrace", "unwanted", multiple=True, metavar="GLOB",
    help="Functions not to trace, of those chosen by -F.",
)  # fmt: skip
duration_option = click.option(
    "-d", "--duration", metavar="TIME", help="Stop after this time (10ms, 2s, 1m)."
)
max_stop_option = click.option(
    "--max-stop", default="1s", show_default=True, metavar="TIME",
    help="Give up rather than stop the process for longer while waiting for a thread.",
)  # fmt: skip


class Interruption:
    """Ctrl-C and SIGTERM as a reason to end, and a descriptor that wakes a select()."""

    def __init__(self) -> None:
        self.reason = ""
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """Readable after a signal."""
        return self.reader.fileno()

    def __call__(self) -> str:
        """Why to end, "" to go on."""
        return self.reason

    def on_signal(self, number: int, frame: object) -> None:
        """Note the signal; a second one changes nothing: restoring comes first."""
        self.reason = self.reason or ("interrupted" if number == signal.SIGINT else "terminated")


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Inside, SIGINT and SIGTERM (and SIGHUP) only set a reason to end."""
    interruption = Interruption()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interruption.on_signal) for number in numbers}
    wakeup = signal.set_wakeup_fd(interruption._writer.fileno(), warn_on_full_buffer=False)
    try:
        yield interruption
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
