"""The extended state of a processor: its parts as XCR0 numbers them, and the room they take."""

from __future__ import annotations

# SDM Vol. 1, 13.1; AVX-512: opmask, upper halves of zmm0-15, zmm16-31.
X87, SSE, AVX, AVX512 = 0x1, 0x2, 0x4, 0xE0


def area_bytes(mask: int, *, compact: bool) -> int:
    """The most that an area for the parts of `mask` takes, as XSAVE or XSAVEC (`compact`) lays it
    out: legacy region and header, then the highest offset that a processor has in the standard
    format (SDM Vol. 1, 13.4, 13.5), or the sum in the compacted."""
    if mask & AVX512:
        return 2432 if compact else 2688
    return 832 if mask & AVX else 576
