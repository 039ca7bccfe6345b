"""Which first instructions of an ordinary function can be moved away, and how many bytes they are.

The narrow, safe set: an instruction counts as plain if it means the same at any address and
execution goes on behind it. Not here: moving them (x86/relocate.py), and who jumps into them
(branches.py).
"""

from __future__ import annotations

from iced_x86 import Decoder, FlowControl, Instruction, Mnemonic

from fentry.sites.site import PATCH_SIZE, Reason

# The longest window is four bytes and one instruction of 15 (SDM Vol. 2, 2.3.11).
LONGEST_WINDOW = 19

_SYSTEM = frozenset((Mnemonic.SYSCALL, Mnemonic.SYSENTER, Mnemonic.SYSRET, Mnemonic.SYSEXIT))
# popf can set the trap flag; an endbr64 is the target of an indirect branch; xend and xabort
# belong to a transaction that started elsewhere.
_NOT_MOVABLE = frozenset(
    (
        Mnemonic.POPF,
        Mnemonic.POPFQ,
        Mnemonic.ENDBR64,
        Mnemonic.ENDBR32,
        Mnemonic.XEND,
        Mnemonic.XABORT,
        Mnemonic.HLT,
    )
)


def prologue_window(code: bytes) -> tuple[int, Reason]:
    """The bytes of the plain instructions that cover the first five, or (0, why there are none)."""
    decoder = Decoder(64, code)
    while decoder.position < PATCH_SIZE:
        if not decoder.can_decode:
            return 0, Reason.TOO_SHORT
        reason = _why_not_plain(decoder.decode())
        if reason:
            return 0, reason
    return decoder.position, Reason.NONE


def _why_not_plain(instruction: Instruction) -> Reason:
    if instruction.is_invalid:
        return Reason.INVALID
    if instruction.flow_control != FlowControl.NEXT:
        if instruction.mnemonic in _SYSTEM or instruction.flow_control == FlowControl.INTERRUPT:
            return Reason.SYSTEM_CALL
        return Reason.CONTROL_FLOW
    if instruction.is_ip_rel_memory_operand:
        return Reason.RIP_RELATIVE
    if instruction.is_privileged or instruction.mnemonic in _NOT_MOVABLE:
        return Reason.NOT_MOVABLE
    return Reason.NONE
