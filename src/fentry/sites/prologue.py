"""Which first instructions of an ordinary function can be moved away, and how many bytes they are.

Not here: moving them (x86/relocate.py), and who else gets between them (branches.py).
"""

from __future__ import annotations

from typing import NamedTuple

from iced_x86 import Decoder, FlowControl, Instruction, Mnemonic, OpKind

from fentry.sites.pad import ROOM_BYTES
from fentry.sites.site import ORIGINAL_BYTES, PATCH_SIZE, Reason, SiteKind
from fentry.x86 import relocate

# The longest window that is kept: what a site remembers of the original bytes.
LONGEST_WINDOW = ORIGINAL_BYTES

_SYSTEM = frozenset((Mnemonic.SYSCALL, Mnemonic.SYSENTER, Mnemonic.SYSRET, Mnemonic.SYSEXIT))


class Window(NamedTuple):
    """How a function begins: `size` bytes of whole instructions (fewer than five where padding
    makes up for the rest), kind REFUSED with a reason or not."""

    kind: SiteKind
    size: int
    reason: Reason


def prologue_window(code: bytes, ip: int, size: int, patch_size: int = PATCH_SIZE) -> Window:
    """The window of a function of `size` bytes whose `code`, with what follows it, is at `ip`.

    `patch_size` bytes of it are to be replaced.
    """
    decoder = Decoder(64, code, ip=ip)
    instructions: list[Instruction] = []
    while decoder.position < min(patch_size, size):
        if not decoder.can_decode:
            return _refused(Reason.TOO_SHORT)
        instruction = decoder.decode()
        reason = _why_not_movable(instruction, ip + patch_size)
        if reason:
            return _refused(reason)
        instructions.append(instruction)
        if relocate.ends_flow(instruction) and not _reach(
            instructions, instruction.next_ip, ip + patch_size
        ):
            break  # what follows is entered from elsewhere, which is looked for, or never
    end = decoder.position
    if not instructions or end > size:
        return _refused(Reason.TOO_SHORT)
    if end < patch_size:
        behind = code[size:] if end < size else code[end:]
        padded = is_padding(behind, patch_size - max(size, end))
        if not (relocate.ends_flow(instructions[-1]) and padded):
            return _refused(Reason.TOO_SHORT)
    if end > LONGEST_WINDOW:
        return _refused(Reason.NOT_MOVABLE)
    if all(relocate.is_plain(instruction) for instruction in instructions):
        return Window(SiteKind.PROLOGUE, end, Reason.NONE)
    try:
        moved = relocate.relocate(code[:end], ip, ip)
    except relocate.CannotMove:
        return _refused(Reason.BRANCH)  # into the middle of one of them
    if len(moved.code) > ROOM_BYTES:
        return _refused(Reason.NOT_MOVABLE)
    return Window(SiteKind.RELOCATED, end, Reason.NONE)


def _reach(instructions: list[Instruction], ip: int, end: int) -> bool:
    # Whether one of them branches to `ip` or to what follows it up to `end`.
    return any(
        instruction.op_count
        and instruction.op0_kind == OpKind.NEAR_BRANCH64
        and ip <= instruction.near_branch_target < end
        for instruction in instructions
    )


def is_padding(code: bytes, count: int) -> bool:
    """Whether the next `count` bytes are NOPs or int3, which nothing runs into; so are none."""
    decoder = Decoder(64, code)
    while decoder.position < count:
        if not decoder.can_decode:
            return False
        instruction = decoder.decode()
        if instruction.mnemonic not in (Mnemonic.NOP, Mnemonic.INT3):
            return False
    return True


def _refused(reason: Reason) -> Window:
    return Window(SiteKind.REFUSED, 0, reason)


def _why_not_movable(instruction: Instruction, end: int) -> Reason:
    if instruction.is_invalid:
        return Reason.INVALID
    flow = instruction.flow_control
    if instruction.mnemonic in _SYSTEM or flow == FlowControl.INTERRUPT:
        return Reason.SYSTEM_CALL
    if relocate.why_not_movable(instruction):
        return Reason.NOT_MOVABLE
    calls = flow in (FlowControl.CALL, FlowControl.INDIRECT_CALL)
    if calls and instruction.next_ip < end:
        return Reason.CALL  # whoever is in it would return between our bytes
    return Reason.NONE
