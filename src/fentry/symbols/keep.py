"""What is found out about a file once, kept on disk by build-id: it never changes for that file.

The folder is $FENTRY_CACHE, or fentry in $XDG_CACHE_HOME or ~/.cache.  A file there is believed
only if it is ours and its checksum is right; what cannot be read or written is done without.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

_CHECKSUM_BYTES = 32


def cache_folder() -> Path:
    """Where it is kept."""
    named = os.environ.get("FENTRY_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "fentry"


def kept(name: str) -> memoryview | None:
    """What store() was given under a name; None where there is nothing, or it is not whole."""
    folder = cache_folder()
    try:
        if folder.stat().st_uid != os.geteuid():
            return None  # somebody else may put anything there
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_uid != os.geteuid():
                return None  # somebody else's word on where to patch
            content = memoryview(file.read())
    except OSError:
        return None
    body = content[_CHECKSUM_BYTES:]
    return body if _checksum(name, body) == content[:_CHECKSUM_BYTES] else None


def store(name: str, body: bytes) -> None:
    """Keep some bytes under a name; no cache is no error: the next attach finds out again."""
    folder = cache_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(_checksum(name, body) + body)
        try:
            os.replace(file.name, folder / name)
        except OSError:
            os.unlink(file.name)


def _checksum(name: str, body: bytes | memoryview) -> bytes:
    # Of the name as well: who may rename our files gives none of them to another program.
    found = hashlib.sha256(name.encode() + b"\0")
    found.update(body)
    return found.digest()
