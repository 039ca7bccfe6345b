"""The pad of a site: code beside the text that the site jumps to.

    offset  bytes   what
    0       4       index of the site (its row in the registry), read by counting trampolines
    4       4       0
    8       5       call TRAMPOLINE        (the return address is pad + 13)
    13      n       the displaced instructions: as they are, or written anew (x86/relocate.py)
    13 + n  5       jmp back to the first instruction behind the window

A NOP site displaces nothing.  Slots are 64 bytes on 64-byte boundaries, so that the call can be
rewritten by one write that neither crosses a page nor a cache line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PAD_BYTES = 64
CALL_OFFSET = 8
RETURN_OFFSET = 13
JMP_BYTES = 5
ROOM_BYTES = PAD_BYTES - RETURN_OFFSET - JMP_BYTES  # for what was moved, before the jump back

CALL = 0xE8  # call rel32
JMP = 0xE9  # jmp rel32
SHORT_JMP = 0xEB  # jmp rel8
_INT3 = 0xCC


def rel32(ips: NDArray[np.uint64], targets: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The operands of 5-byte calls or jumps at `ips` to `targets`: uint8[n, 4].

    Raises ValueError when one is out of reach.
    """
    distance = targets.astype(np.int64) - (ips.astype(np.int64) + 5)
    if len(distance) and (distance.max() >= 1 << 31 or distance.min() < -(1 << 31)):
        raise ValueError("a branch of 5 bytes does not reach its target")
    return distance.astype("<i4").view(np.uint8).reshape(-1, 4)


def branches(
    opcode: int, ips: NDArray[np.uint64], targets: NDArray[np.uint64]
) -> NDArray[np.uint8]:
    """Calls or jumps of 5 bytes: uint8[n, 5]."""
    code = np.empty((len(ips), 5), np.uint8)
    code[:, 0] = opcode
    code[:, 1:] = rel32(ips, targets)
    return code


def short_jumps(ips: NDArray[np.uint64], targets: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Jumps of 2 bytes at `ips` to `targets`: uint8[n, 2]. Raises ValueError out of reach."""
    distance = targets.astype(np.int64) - (ips.astype(np.int64) + 2)
    if len(distance) and (distance.max() > 127 or distance.min() < -128):
        raise ValueError("a branch of 2 bytes does not reach its target")
    code = np.full((len(ips), 2), SHORT_JMP, np.uint8)
    code[:, 1] = distance.astype(np.int8).view(np.uint8)
    return code


def build_pads(
    pads: NDArray[np.uint64],
    indices: NDArray[np.uint32],
    calls: NDArray[np.uint64],
    moved: NDArray[np.uint8],
    moved_bytes: NDArray[np.int64],
    backs: NDArray[np.uint64],
) -> NDArray[np.uint8]:
    """Pads of n sites: uint8[n, PAD_BYTES].

    `pads`, `calls` and `backs` are addresses in the target (pad, trampoline, continuation);
    `moved` is uint8[n, up to ROOM_BYTES], of which the first `moved_bytes` of each row are code.
    """
    n = len(pads)
    code = np.full((n, PAD_BYTES), _INT3, np.uint8)
    code[:, 0:4] = indices.astype("<u4").view(np.uint8).reshape(n, 4)
    code[:, 4:8] = 0
    code[:, CALL_OFFSET:RETURN_OFFSET] = branches(CALL, pads + np.uint64(CALL_OFFSET), calls)
    columns = np.arange(moved.shape[1])
    wanted = columns < moved_bytes[:, None]
    code[:, RETURN_OFFSET : RETURN_OFFSET + moved.shape[1]][wanted] = moved[wanted]
    ends = RETURN_OFFSET + moved_bytes
    jumps = branches(JMP, pads + ends.astype(np.uint64), backs)
    code[np.arange(n)[:, None], ends[:, None] + np.arange(5)] = jumps
    return code
