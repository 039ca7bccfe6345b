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
    path = cache_folder() / name
    try:
        if path.stat().st_uid != os.geteuid():
            return None  # somebody else's word on where to patch
        content = memoryview(path.read_bytes())
    except OSError:
        return None
    body = content[_CHECKSUM_BYTES:]
    return body if hashlib.sha256(body).digest() == content[:_CHECKSUM_BYTES] else None


def store(name: str, body: bytes) -> None:
    """Keep some bytes under a name; no cache is no error: the next attach finds out again."""
    folder = cache_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(hashlib.sha256(body).digest() + body)
        os.replace(file.name, folder / name)
