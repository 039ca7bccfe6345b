"""Where the caller of generated code is found at each of its instructions: call frame rows.

For code of ours only: what it does to rsp is plain (push, pop, add, sub, lea, and a frame by rbp).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from iced_x86 import Decoder, FlowControl, Instruction, Mnemonic, OpKind
from iced_x86 import Register as IcedRegister

from fentry.x86.decode import branch_target, falls_through

# Callee-saved registers by their DWARF numbers: psABI, figure 3.36.
_SAVED = {
    IcedRegister.RBX: 3, IcedRegister.RBP: 6, IcedRegister.R12: 12, IcedRegister.R13: 13,
    IcedRegister.R14: 14, IcedRegister.R15: 15,
}  # fmt: skip
RBP, RSP = 6, 7
_WORD = 8


@dataclass(frozen=True, slots=True)
class Row:
    """From `offset` of the code on: the frame address (CFA) is `register` (DWARF number) plus
    `distance` bytes; `saved` are (DWARF number, bytes below the CFA) of registers of the caller."""

    offset: int
    register: int = RSP
    distance: int = _WORD
    saved: tuple[tuple[int, int], ...] = ()


def frame_rows(code: bytes) -> list[Row]:
    """The rows of code that is called at its first byte and may end by a jump, in order of offset;
    what cannot be reached from there has that of what is before it."""
    known: dict[int, Row] = {}
    work = [Row(0)]
    while work:
        row = work.pop()
        if row.offset in known or not 0 <= row.offset < len(code):
            continue
        known[row.offset] = row
        instruction = Decoder(64, code[row.offset : row.offset + 15], ip=row.offset).decode()
        if instruction.is_invalid:
            continue
        after = _after(row, instruction)
        if after is None or after.distance < 0:  # what a target may have written over it is no code
            continue
        target = branch_target(instruction)
        if target is not None and instruction.flow_control != FlowControl.CALL:
            work.append(replace(after, offset=target))
        if falls_through(instruction):
            work.append(replace(after, offset=row.offset + instruction.len))
    return _distinct([known[offset] for offset in sorted(known)])


def _distinct(rows: list[Row]) -> list[Row]:
    kept: list[Row] = []
    for row in rows:
        if not kept or replace(row, offset=kept[-1].offset) != kept[-1]:
            kept.append(row)
    return kept


def _after(row: Row, instruction: Instruction) -> Row | None:
    # The row behind an instruction; None where the frame cannot be followed any further.
    first = instruction.op0_register if instruction.op_count else IcedRegister.NONE
    second = instruction.op1_register if instruction.op_count > 1 else IcedRegister.NONE
    move = instruction.mnemonic == Mnemonic.MOV
    if move and (first, second) == (IcedRegister.RBP, IcedRegister.RSP) and row.register == RSP:
        return replace(row, register=RBP)
    if move and (first, second) == (IcedRegister.RSP, IcedRegister.RBP):
        return replace(row, register=RSP)
    if row.register == RBP:
        return row
    if instruction.mnemonic == Mnemonic.PUSH:
        distance, number = row.distance + _WORD, _SAVED.get(first)
        saved = row.saved
        if number is not None and number not in dict(saved):
            saved += ((number, distance),)
        return replace(row, distance=distance, saved=saved)
    if instruction.mnemonic == Mnemonic.POP:
        distance = row.distance - _WORD
        kept = tuple(one for one in row.saved if one[1] <= distance)
        return replace(row, distance=distance, saved=kept)
    if instruction.mnemonic == Mnemonic.LEA and first == IcedRegister.RSP:
        if instruction.memory_base != IcedRegister.RSP or instruction.memory_index:
            return None
        displacement = instruction.memory_displacement
        return replace(row, distance=row.distance - _signed(displacement))
    if first == IcedRegister.RSP and instruction.mnemonic in (Mnemonic.ADD, Mnemonic.SUB):
        if instruction.op1_kind == OpKind.REGISTER:
            return None
        count = _signed(instruction.immediate(1))
        grows = instruction.mnemonic == Mnemonic.SUB
        return replace(row, distance=row.distance + (count if grows else -count))
    if first == IcedRegister.RSP and instruction.mnemonic not in (Mnemonic.CMP, Mnemonic.TEST):
        return None
    return (
        replace(row, distance=row.distance - instruction.stack_pointer_increment)
        if (instruction.flow_control not in (FlowControl.CALL, FlowControl.INDIRECT_CALL))
        else row
    )


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
