"""What can go wrong, as classes with data and an exit code by kind.

Every message is two lines when it reaches a person: what failed, then cause and remedy.
"""

from __future__ import annotations

__all__ = [
    "AttachError",
    "BadInput",
    "FentryError",
    "LockError",
    "PatchError",
    "RegionError",
    "StopTimeout",
    "SymbolNotFound",
    "TargetGone",
    "TraceFileError",
]


class FentryError(Exception):
    """Base of all errors of fentry.

    `what` is one line without a full stop; `cause` and `remedy` are shown on a second line.
    `exit_code` is what the command line returns for this kind of error.
    """

    exit_code = 1

    def __init__(self, what: str, *, cause: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        second = []
        if self.cause:
            second.append(f"cause: {self.cause}")
        if self.remedy:
            second.append(f"try: {self.remedy}")
        return self.what + ("\n  " + "    ".join(second) if second else "")


class BadInput(FentryError, ValueError):
    """A pattern, option or value that cannot be understood."""

    exit_code = 2


class AttachError(FentryError, PermissionError):
    """The target cannot be attached to; nothing in it was changed."""

    exit_code = 3


class TargetGone(FentryError, ProcessLookupError):
    """The target does not exist, has exited, or has replaced its address space by exec."""

    exit_code = 4


class SymbolNotFound(FentryError, LookupError):
    """No function matches; `near` holds similar names that exist."""

    exit_code = 5

    def __init__(
        self, what: str, *, near: tuple[str, ...] = (), cause: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, cause=cause, remedy=remedy)
        self.near = near


class LockError(FentryError, BlockingIOError):
    """Another controller is changing this target just now, or holds it: `holder` is the process
    that has its threads, 0 if none has."""

    exit_code = 6
    holder = 0


class StopTimeout(FentryError, TimeoutError):
    """Some thread could not be stopped in time; all others run again, nothing was changed."""

    exit_code = 7


class PatchError(FentryError):
    """Text could not be read, was not what was expected, or could not be written."""

    exit_code = 8

    def __init__(
        self,
        what: str,
        *,
        address: int = 0,
        expected: bytes = b"",
        found: bytes = b"",
        cause: str = "",
        remedy: str = "",
    ) -> None:
        super().__init__(what, cause=cause, remedy=remedy)
        self.address = address
        self.expected = expected
        self.found = found


class RegionError(FentryError):
    """The region in the target is damaged, of another version, or cannot be made."""

    exit_code = 9


class TraceFileError(FentryError, ValueError):
    """A trace file is not one, is damaged, or cannot be written; `offset` is in bytes."""

    exit_code = 10

    def __init__(self, what: str, *, offset: int = 0, cause: str = "", remedy: str = "") -> None:
        super().__init__(what, cause=cause, remedy=remedy)
        self.offset = offset
