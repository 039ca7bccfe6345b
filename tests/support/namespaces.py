"""Commands run inside the namespaces of a target, as with `docker exec`."""

from __future__ import annotations

import ctypes
import os

from fentry.cli.__main__ import main
from tests.support.unprivileged import Account, Completed, cache_of

_libc = ctypes.CDLL(None, use_errno=True)


def fentry_inside(account: Account, pid: int, *arguments: object) -> Completed:
    """What `fentry ARGUMENTS` prints when `account` runs it in the namespaces of process `pid`."""
    words = ["fentry", *map(str, arguments)]

    def run() -> Completed:
        _enter(pid)
        # A child of ours is the first one in the pid namespace; it is whoever we are in there.
        return Account("inside", os.getuid()).run(command)

    def command() -> Completed:
        os.environ["FENTRY_CACHE"] = str(cache_of(account.uid))
        return _main(words)

    return account.run(run)


def _main(words: list[str]) -> Completed:
    from tests.support.unprivileged import _captured_main

    return _captured_main(main, words)


def _enter(pid: int) -> None:
    own = os.stat("/proc/self/ns/user").st_ino
    is_other = os.stat(f"/proc/{pid}/ns/user").st_ino != own
    kinds = ["user"] * is_other + ["pid", "mnt"]
    opened = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    for fd in opened:
        if _libc.setns(fd, 0):
            error = ctypes.get_errno()
            raise OSError(error, f"setns: {os.strerror(error)}")
