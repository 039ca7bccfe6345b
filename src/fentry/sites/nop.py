"""Sites that a compiler prepared: five bytes of NOPs at the entry.

-fpatchable-function-entry=5 leaves five one-byte NOPs, -mnop-mcount one of five bytes; GNU as
and LLVM may choose any of the forms of SDM Vol. 2, NOP, table 4-12.
"""

from __future__ import annotations

from iced_x86 import Decoder, Mnemonic

from fentry.sites.site import PATCH_SIZE

ENDBR64 = bytes.fromhex("f30f1efa")
_SINGLE = bytes.fromhex("0f1f440000")
_FIVE = b"\x90" * PATCH_SIZE
# What a NOP can start with: itself, its opcode map, operand size, and segment prefixes.
_STARTS = frozenset(b"\x90\x0f\x66\x2e\x3e")


def is_nop_site(code: bytes) -> bool:
    """Whether `code` starts with NOPs that end exactly after five bytes."""
    head = code[:PATCH_SIZE]
    if head in (_SINGLE, _FIVE):
        return True
    if len(head) < PATCH_SIZE or head[0] not in _STARTS:
        return False
    decoder = Decoder(64, head)
    while decoder.position < PATCH_SIZE:
        instruction = decoder.decode()
        if instruction.is_invalid or instruction.mnemonic != Mnemonic.NOP:
            return False
    return True
