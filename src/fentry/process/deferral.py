"""Signals of this process put off while a target is stopped, so that nobody is left stopped.

A handler of Python's may raise between any two lines, Ctrl-Z stops us with the target in our
hands. Blocking does not help: the kernel gives a signal to any thread that does not block it
(numpy starts some), and Python runs its handler in the main thread all the same. So the handlers
themselves only take note, and what came is raised again afterwards.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What people and programs send. Where nobody handles it, it kills us, which is safe at any time.
_HANDLED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGQUIT, signal.SIGUSR1,
    signal.SIGUSR2, signal.SIGVTALRM, signal.SIGPROF, signal.SIGCHLD, signal.SIGWINCH,
    signal.SIGCONT,
)  # fmt: skip
# What stops us, where nobody handles it.
_STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Inside, no handler of Python's runs and nothing but SIGSTOP stops this process.

    Only in the main thread, where Python runs its handlers; elsewhere, and inside another such
    block, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)

    before = {}
    for number in (*_HANDLED, *_STOPPING):
        handler = signal.getsignal(number)
        if getattr(handler, "__qualname__", "") == note.__qualname__:
            continue
        if callable(handler) or (number in _STOPPING and handler is signal.SIG_DFL):
            before[number] = handler
    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for taken in dict.fromkeys(came):
            signal.raise_signal(taken)
