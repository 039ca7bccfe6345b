"""The pad of a site: code beside the text that the site jumps to.

    offset  bytes   what
    0       4       index of the site (its row in the registry), read by counting trampolines
    4       4       0: bytes from the parent's slot to where rsp was before, read where all
                    registers are saved
    8       5       call TRAMPOLINE        (the return address is pad + 13)
    13      n       the displaced instructions: as they are, or written anew (x86/relocate.py)
    13 + n  5       jmp back to the first instruction behind the window

A NOP site displaces nothing.  Slots are 64 bytes on 64-byte boundaries, so that the call can be
rewritten by one write that neither crosses a page nor a cache line.

A part of a function is entered in the middle of a call: what its function keeps in the red zone
(psABI 3.2.2) is in use, and no return address is on top of the stack.  Its pad is entered at 55,
steps over the red zone, and pushes a parent_ip of 0; lea changes no flags:

    4       4       136
    8       5       call TRAMPOLINE
    13      8       lea rsp, [rsp + 136]
    21      n       the displaced instructions
    21 + n  5       jmp back
    55      5       lea rsp, [rsp - 128]
    60      2       push 0
    62      2       jmp to the call
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PAD_BYTES = 64
CALL_OFFSET = 8
RETURN_OFFSET = 13
JMP_BYTES = 5
ROOM_BYTES = PAD_BYTES - RETURN_OFFSET - JMP_BYTES  # for what was moved, before the jump back

RED_ZONE_BYTES = 128
PART_STEP = RED_ZONE_BYTES + 8
_STEP_BACK = bytes.fromhex("488da42488000000")  # lea rsp, [rsp + 136]
_STEP = bytes.fromhex("488d6424806a00ebc8")  # lea rsp, [rsp - 128]; push 0; jmp pad + 8
PART_OFFSET = PAD_BYTES - len(_STEP)
PART_ROOM_BYTES = PART_OFFSET - RETURN_OFFSET - len(_STEP_BACK) - JMP_BYTES

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


def entries(pads: NDArray[np.uint64], parts: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Where sites jump to whose pads are at `pads`, of functions or `parts` of them: uint64[n]."""
    return pads + np.where(parts, np.uint64(PART_OFFSET), np.uint64(CALL_OFFSET))


def moved_offset(part: bool) -> int:
    """Where in the pad of a function, or of a part of one, the displaced instructions begin."""
    return RETURN_OFFSET + (len(_STEP_BACK) if part else 0)


def build_pads(
    pads: NDArray[np.uint64],
    indices: NDArray[np.uint32],
    calls: NDArray[np.uint64],
    moved: NDArray[np.uint8],
    moved_bytes: NDArray[np.int64],
    backs: NDArray[np.uint64],
    parts: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Pads of n sites: uint8[n, PAD_BYTES].

    `pads`, `calls` and `backs` are addresses in the target (pad, trampoline, continuation);
    `moved` is uint8[n, up to ROOM_BYTES], of which the first `moved_bytes` of each row are code, of
    `parts` (bool[n], none by default) at most PART_ROOM_BYTES.
    """
    n = len(pads)
    parts = np.zeros(n, np.bool_) if parts is None else parts
    if (moved_bytes > np.where(parts, PART_ROOM_BYTES, ROOM_BYTES)).any():
        raise ValueError("what was moved does not fit into its pad")
    code = np.full((n, PAD_BYTES), _INT3, np.uint8)
    code[:, 0:4] = indices.astype("<u4").view(np.uint8).reshape(n, 4)
    code[:, 4:8] = 0
    code[parts, 4:8] = np.frombuffer(PART_STEP.to_bytes(4, "little"), np.uint8)
    code[:, CALL_OFFSET:RETURN_OFFSET] = branches(CALL, pads + np.uint64(CALL_OFFSET), calls)
    begins = np.where(parts, moved_offset(True), moved_offset(False))
    row, column = np.nonzero(np.arange(moved.shape[1]) < moved_bytes[:, None])
    code[row, begins[row] + column] = moved[row, column]
    code[parts, RETURN_OFFSET : moved_offset(True)] = np.frombuffer(_STEP_BACK, np.uint8)
    code[parts, PART_OFFSET:] = np.frombuffer(_STEP, np.uint8)
    ends = begins + moved_bytes
    jumps = branches(JMP, pads + ends.astype(np.uint64), backs)
    code[np.arange(n)[:, None], ends[:, None] + np.arange(5)] = jumps
    return code
