"""The analysis of a module, kept on disk: symbols/keep.py."""

from __future__ import annotations

import gc
import io
import zlib

import numpy as np
from numpy.typing import NDArray

from fentry.sites.site import SITE_DTYPE, ModuleSites, Reason, refuse_all
from fentry.symbols.elf import ElfImage
from fentry.symbols.keep import kept, store
from fentry.symbols.module import Module

ANALYSIS_VERSION = 19


def analyse_cached(module: Module) -> ModuleSites:
    """The sites of a module, from the cache if it is there, else analysed and kept."""
    rows = module.image.functions.rows
    if module.is_vdso:
        return refuse_all(rows["vaddr"], rows["size"], Reason.VDSO)
    build_id = module.image.build_id
    if not build_id or module.image.memory_bias is not None:
        return _analyse(module.image)
    names = zlib.crc32(rows.tobytes())  # debug files come and go
    name = f"{build_id}-{module.image.size}-{names:08x}-v{ANALYSIS_VERSION}.sites"
    found = _load(name)
    if found is None:
        found = _analyse(module.image)
        _store(name, found)
    return found


def _load(name: str) -> ModuleSites | None:
    body = kept(name)
    if body is None:
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


def _store(name: str, found: ModuleSites) -> None:
    stream = io.BytesIO()
    np.save(stream, found.sites)
    np.save(stream, np.array(list(found.blockers), np.uint64))
    np.save(stream, np.array(list(found.blockers.values()), np.uint64))
    store(name, stream.getvalue())


def _analyse(image: ElfImage) -> ModuleSites:
    from fentry.sites.find import analyse  # slow to import, and seldom needed

    # Hundreds of thousands of instructions and not one cycle: looking for some takes a tenth of
    # the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return analyse(image)
    finally:
        if collecting:
            gc.enable()
