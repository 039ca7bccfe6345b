"""The analysis of a module, kept on disk by build-id: it never changes for the same file.

The folder is $FENTRY_CACHE, or fentry in $XDG_CACHE_HOME or ~/.cache.  A file there is believed
only if its checksum is right; what cannot be read or written is done without.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fentry.sites.find import analyse
from fentry.sites.site import SITE_DTYPE, ModuleSites, Reason, refuse_all
from fentry.symbols.module import Module

ANALYSIS_VERSION = 15

_CHECKSUM_BYTES = 32


def analyse_cached(module: Module) -> ModuleSites:
    """The sites of a module, from the cache if it is there, else analysed and kept."""
    rows = module.image.functions.rows
    if module.is_vdso:
        return refuse_all(rows["vaddr"], rows["size"], Reason.VDSO)
    build_id = module.image.build_id
    if not build_id or module.image.memory_bias is not None:
        return analyse(module.image)
    names = zlib.crc32(rows.tobytes())  # debug files come and go
    name = f"{build_id}-{module.image.size}-{names:08x}-v{ANALYSIS_VERSION}.sites"
    path = cache_folder() / name
    found = _load(path)
    if found is None:
        found = analyse(module.image)
        _store(path, found)
    return found


def cache_folder() -> Path:
    """Where analyses are kept."""
    named = os.environ.get("FENTRY_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "fentry"


def _load(path: Path) -> ModuleSites | None:
    try:
        if path.stat().st_uid != os.geteuid():
            return None  # somebody else's word on where to patch
        content = path.read_bytes()
    except OSError:
        return None
    body = content[_CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() != content[:_CHECKSUM_BYTES]:
        return None
    try:
        stream = io.BytesIO(body)
        sites: NDArray[np.void] = np.load(stream, allow_pickle=False)
        keys, values = (np.load(stream, allow_pickle=False).tolist() for _ in range(2))
    except (ValueError, EOFError, OSError):
        return None
    if sites.dtype != SITE_DTYPE:
        return None
    return ModuleSites(sites, dict(zip(keys, values, strict=True)))


def _store(path: Path, found: ModuleSites) -> None:
    stream = io.BytesIO()
    np.save(stream, found.sites)
    np.save(stream, np.array(list(found.blockers), np.uint64))
    np.save(stream, np.array(list(found.blockers.values()), np.uint64))
    body = stream.getvalue()
    with contextlib.suppress(OSError):  # no cache is no error: the next attach analyses again
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(body).digest() + body)
        os.replace(file.name, path)
