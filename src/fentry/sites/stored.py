"""An analysis that is worked out once a file and read from disk afterwards.

Layout of the payload, little-endian: u4 number of rows, u4 number of blockers, the rows as
SITE_DTYPE, the blockers as pairs of u8 (entry, address).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from fentry.sites.find import analyse
from fentry.sites.site import SITE_DTYPE, ModuleSites
from fentry.symbols.cache import AnalysisCache, cache_key
from fentry.symbols.elf import ElfImage

# Raised with every change of a rule in this package or of SITE_DTYPE.
ANALYSIS_VERSION = 1

_COUNTS = struct.Struct("<II")
_BLOCKER_DTYPE = np.dtype([("entry", "<u8"), ("address", "<u8")])


def analyse_cached(image: ElfImage, cache: AnalysisCache) -> ModuleSites:
    """analyse(image), from the cache if it has this file, into the cache if it had not.

    What is read is compared with the image: the function addresses, and the bytes at each site.
    Raises BadInput if the image is damaged; the cache's own troubles are never an error.
    """
    key = cache_key(image)
    if key is None:
        return analyse(image)
    payload = cache.load(key, ANALYSIS_VERSION)
    found = _unpack(payload) if payload is not None else None
    if found is not None and _agrees(found, image):
        return found
    found = analyse(image)
    cache.store(key, ANALYSIS_VERSION, _pack(found))
    return found


def _pack(found: ModuleSites) -> bytes:
    blockers = np.array(list(found.blockers.items()), np.uint64).reshape(-1, 2)
    counts = _COUNTS.pack(len(found.sites), len(blockers))
    return counts + found.sites.tobytes() + blockers.astype("<u8").tobytes()


def _unpack(payload: bytes) -> ModuleSites | None:
    if len(payload) < _COUNTS.size:
        return None
    rows, nr_blockers = _COUNTS.unpack_from(payload)
    middle = _COUNTS.size + rows * SITE_DTYPE.itemsize
    if len(payload) != middle + nr_blockers * _BLOCKER_DTYPE.itemsize:
        return None
    sites = np.frombuffer(payload, SITE_DTYPE, rows, _COUNTS.size)
    blockers = np.frombuffer(payload, _BLOCKER_DTYPE, nr_blockers, middle)
    return ModuleSites(sites, dict(blockers.tolist()))


def _agrees(found: ModuleSites, image: ElfImage) -> bool:
    if not np.array_equal(found.sites["entry"], image.functions.rows["vaddr"]):
        return False
    return all(
        np.array_equal(_bytes_at(image, segment.vaddr, patches), originals)
        for segment in image.executable
        for patches, originals in [_sites_in(found, segment.vaddr, segment.file_size)]
    )


def _sites_in(
    found: ModuleSites, start: int, size: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    patch = found.sites["patch"]
    here = found.sites[(patch >= start) & (patch < start + size) & found.traceable]
    originals = np.ascontiguousarray(here["original"]).view(np.uint8).reshape(-1, 16)
    return here["patch"], originals


def _bytes_at(image: ElfImage, start: int, patches: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """16 bytes at each address, uint8[n, 16], zeros past the end of the segment."""
    code = np.concatenate([image.tail(start), np.zeros(16, np.uint8)])
    at = (patches - np.uint64(start)).astype(np.int64)
    result: NDArray[np.uint8] = code[at[:, None] + np.arange(16)]
    return result
