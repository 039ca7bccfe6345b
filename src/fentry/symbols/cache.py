"""Results of analysing a file, kept on disk by build id.

Never trusted blindly: an entry counts only if it belongs to this user alone, is of this version,
is for a file of the same size and the same headers, and matches its own checksum. Anything else
is as if there were nothing. Not here: what the bytes mean (sites/stored.py).

An entry is one file, "<build id>-<key>":

    offset size
         0    8  magic, with the version of this layout
         8    4  version of the analysis
        12    4  reserved, 0
        16    8  size of the payload in bytes
        24   32  BLAKE2b of (key text, analysis version, payload)
        56    n  payload
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fentry.symbols.elf import ElfImage

_MAGIC = b"fentryC1"
_HEADER = struct.Struct("<8sIIQ32s")
_DIGEST_SIZE = 32
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What an entry is for: `file_name` names it, `identity` is every byte that must agree."""

    file_name: str
    identity: bytes


def cache_key(image: ElfImage) -> CacheKey | None:
    """The key of an image; None if it has no build id or comes from a target's memory.

    strip(1) keeps the build id, so that the file's size and a digest of its first page and its
    section headers are part of the key: they tell which symbols there are.
    """
    if not image.build_id or image.memory_bias is not None:
        return None
    digest = hashlib.blake2b(image.header_bytes(), digest_size=8).hexdigest()
    identity = f"{image.build_id}-{image.size:x}-{digest}"
    return CacheKey(identity, identity.encode())


class AnalysisCache:
    """Entries in one directory, made on the first write with mode 0700.

    `directory` None: $FENTRY_CACHE, else $XDG_CACHE_HOME/fentry, else ~/.cache/fentry. One that
    cannot be read or written makes every load() fail and every store() do nothing.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory if directory is not None else default_directory()

    def load(self, key: CacheKey, version: int) -> bytes | None:
        """The payload of an entry, None if there is none that can be trusted."""
        raw = self._read(key)
        if raw is None or len(raw) < _HEADER.size:
            return None
        magic, found, _, size, digest = _HEADER.unpack_from(raw)
        payload = raw[_HEADER.size :]
        if magic != _MAGIC or found != version or size != len(payload):
            return None
        return payload if digest == _checksum(key, version, payload) else None

    def store(self, key: CacheKey, version: int, payload: bytes) -> bool:
        """Writes an entry in one step (rename); False if the directory does not allow it."""
        header = _HEADER.pack(_MAGIC, version, 0, len(payload), _checksum(key, version, payload))
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _belongs_to_us(os.lstat(self.directory), stat.S_ISDIR):
                return False
            descriptor, temporary = tempfile.mkstemp(dir=self.directory, prefix=".new-")
        except OSError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(header + payload)
            os.replace(temporary, self.directory / key.file_name)
        except OSError:  # the disk is full, or the directory went away
            with suppress(OSError):
                os.unlink(temporary)
            return False
        return True

    def _read(self, key: CacheKey) -> bytes | None:
        try:
            if not _belongs_to_us(os.lstat(self.directory), stat.S_ISDIR):
                return None
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            with open(os.open(self.directory / key.file_name, flags), "rb") as file:
                status = os.fstat(file.fileno())
                if not _belongs_to_us(status, stat.S_ISREG) or status.st_size > _MOST_BYTES:
                    return None
                return file.read()
        except OSError:
            return None


def default_directory() -> Path:
    """Where entries lie unless a directory is given."""
    own = os.environ.get("FENTRY_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~/.cache"))) / "fentry"


def _checksum(key: CacheKey, version: int, payload: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    for part in (key.identity, b"\0", str(version).encode(), b"\0", payload):
        digest.update(part)
    return digest.digest()


def _belongs_to_us(status: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is of the right kind, this user's, and nobody else may write to it."""
    return is_kind(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
