"""The few byte strings that are written into text as they are, each with its assembly.

NOPs: Intel SDM Vol. 2B, NOP, table 4-12 "Recommended Multi-Byte Sequence of NOP Instruction".
Branch distances count from the end of the five-byte instruction (SDM Vol. 2A, CALL and JMP).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Addresses: TypeAlias = npt.NDArray[np.uint64]
    SiteBytes: TypeAlias = npt.NDArray[np.uint8]

# fmt: off
INT3 = b"\xcc"                                       # int3
RET = b"\xc3"                                        # ret
ENDBR64 = b"\xf3\x0f\x1e\xfa"                        # endbr64
CALL_OPCODE = b"\xe8"                                # call rel32
JMP_OPCODE = b"\xe9"                                 # jmp rel32

NOP1 = b"\x90"                                       # nop
NOP2 = b"\x66\x90"                                   # xchg ax, ax
NOP3 = b"\x0f\x1f\x00"                               # nop dword [rax]
NOP4 = b"\x0f\x1f\x40\x00"                           # nop dword [rax + 0] (disp8)
NOP5 = b"\x0f\x1f\x44\x00\x00"                       # nop dword [rax + rax + 0] (disp8)
NOP6 = b"\x66\x0f\x1f\x44\x00\x00"                   # nop word [rax + rax + 0] (disp8)
NOP7 = b"\x0f\x1f\x80\x00\x00\x00\x00"               # nop dword [rax + 0] (disp32)
NOP8 = b"\x0f\x1f\x84\x00\x00\x00\x00\x00"           # nop dword [rax + rax + 0] (disp32)
NOP9 = b"\x66\x0f\x1f\x84\x00\x00\x00\x00\x00"       # nop word [rax + rax + 0] (disp32)
# fmt: on

NOPS = (NOP1, NOP2, NOP3, NOP4, NOP5, NOP6, NOP7, NOP8, NOP9)
BRANCH_SIZE = 5  # bytes of call rel32 and jmp rel32

_REL32_MIN = -(1 << 31)
_REL32_MAX = (1 << 31) - 1
_ADDRESS_MASK = (1 << 64) - 1


def nops(count: int) -> bytes:
    """`count` bytes of recommended NOPs, in as few instructions as there can be."""
    if count < 0:
        raise ValueError(f"count of NOP bytes is negative: {count}")
    whole, rest = divmod(count, len(NOPS))
    return NOPS[-1] * whole + (NOPS[rest - 1] if rest else b"")


def in_reach(ip: int, target: int) -> bool:
    """Whether a five-byte call or jmp at `ip` reaches `target` (within 2 GiB of its end)."""
    return _REL32_MIN <= target - (ip + BRANCH_SIZE) <= _REL32_MAX


def call_rel32(ip: int, target: int) -> bytes:
    """`call target` at `ip`; raises ValueError when the target is out of reach."""
    return CALL_OPCODE + _rel32(ip, target)


def jmp_rel32(ip: int, target: int) -> bytes:
    """`jmp target` at `ip`; raises ValueError when the target is out of reach."""
    return JMP_OPCODE + _rel32(ip, target)


def branch_target(ip: int, code: bytes) -> int:
    """Where the five bytes `code`, a call or jmp rel32 at `ip`, go; ValueError if they are not."""
    if len(code) != BRANCH_SIZE or code[:1] not in (CALL_OPCODE, JMP_OPCODE):
        raise ValueError(f"bytes at {ip:#x} are no call or jmp rel32: {code.hex(' ')}")
    rel32 = int.from_bytes(code[1:], "little", signed=True)
    return (ip + BRANCH_SIZE + rel32) & _ADDRESS_MASK


def call_rel32_many(ips: Addresses, targets: Addresses) -> SiteBytes:
    """`call targets[i]` at `ips[i]` as uint8[n, 5]; ValueError names the first out of reach."""
    return _branch_many(CALL_OPCODE, ips, targets)


def jmp_rel32_many(ips: Addresses, targets: Addresses) -> SiteBytes:
    """`jmp targets[i]` at `ips[i]` as uint8[n, 5]; ValueError names the first out of reach."""
    return _branch_many(JMP_OPCODE, ips, targets)


def _rel32(ip: int, target: int) -> bytes:
    if not in_reach(ip, target):
        raise ValueError(f"target {target:#x} is out of reach of a branch at {ip:#x}")
    return (target - (ip + BRANCH_SIZE)).to_bytes(4, "little", signed=True)


def _branch_many(opcode: bytes, ips: Addresses, targets: Addresses) -> SiteBytes:
    import numpy as np  # here: it loads longer than the whole package

    ips, targets = np.broadcast_arrays(
        np.asarray(ips, dtype=np.uint64), np.asarray(targets, dtype=np.uint64)
    )
    # Wrapping 64-bit subtraction, read as signed, is the distance between any two addresses of
    # one half of the address space, where all of user space lies.
    distance = (targets - ips).view(np.int64) - np.int64(BRANCH_SIZE)
    far = (distance < _REL32_MIN) | (distance > _REL32_MAX)
    if far.any():
        first = int(np.flatnonzero(far)[0])
        ip, target = int(ips[first]), int(targets[first])
        raise ValueError(f"target {target:#x} is out of reach of a branch at {ip:#x}")
    code = np.empty((len(ips), BRANCH_SIZE), dtype=np.uint8)
    code[:, 0] = opcode[0]
    code[:, 1:] = distance.astype("<i4").view(np.uint8).reshape(-1, 4)
    return code
