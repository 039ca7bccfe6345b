"""Where computed jumps can go: `jmp reg` and `jmp [memory]`.

An absolute address of code can come from a relocation or a word of data (code_pointers), from a
lea, or from a table of 32-bit offsets to which the table's own address is added (the jump tables
of gcc and clang for position independent code). The first two are checked for the whole image
by find.py, so a jump to a pointer that was only loaded or passed in needs nothing further. Of
the third, all entries of every table the function refers to are read, up to the next
address that some lea makes. A jump to an address
computed in any other way is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from iced_x86 import (
    Code,
    FlowControl,
    Instruction,
    InstructionInfoFactory,
    Mnemonic,
    OpAccess,
    OpKind,
    Register,
    RegisterExt,
)
from numpy.typing import NDArray

from fentry.sites.branches import Branches, Flow
from fentry.symbols.elf import ElfImage

_FARTHEST_BACK = 64
_WRITES = frozenset(
    (OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE, OpAccess.READ_COND_WRITE)
)
# System V psABI 3.2.1: a call keeps these.
_KEPT_BY_CALLS = frozenset(
    (Register.RBX, Register.RBP, Register.R12, Register.R13, Register.R14, Register.R15)
)


class _Origin(Enum):
    """Where a jump's register got its value."""

    POINTER = auto()  # loaded, passed in, returned, or made by a lea
    TABLE = auto()  # a table's address plus a 32-bit entry of it
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Reach:
    """What the computed jumps of one function reach.

    `into`: pairs (vaddr of the jump, its target) that hit a window's interior. `unknown`: the
    vaddr of a jump whose targets could not be established, if there is one.
    """

    into: tuple[tuple[int, int], ...]
    unknown: int | None


class JumpCheck:
    """Judges computed jumps against `interior`, a Branches.blank() with the windows marked."""

    def __init__(self, image: ElfImage, branches: Branches, interior: NDArray[np.bool_]) -> None:
        self._image = image
        self._branches = branches
        self._interior = interior
        self._usage = InstructionInfoFactory()

    def row(self, row: int) -> Reach:
        """What the jumps of function number `row` reach."""
        flow = self._branches.flow(row)
        into: list[tuple[int, int]] = []
        for number in flow.jumps:
            jump = flow.instructions[number]
            origin = self._origin(flow, number)
            hits = self._table_hits(flow) if origin == _Origin.TABLE else []
            if origin == _Origin.UNKNOWN or hits is None:
                return Reach(tuple(into), jump.ip)
            into += [(jump.ip, target) for target in hits]
        if not flow.trusted and not flow.jumps:
            return Reach(tuple(into), flow.start)  # the jump may hide in what did not decode
        return Reach(tuple(into), None)

    def has_tables(self, row: int) -> bool:
        """Whether function number `row` has a computed jump that may be a switch's."""
        flow = self._branches.flow(row)
        return any(self._origin(flow, number) != _Origin.POINTER for number in flow.jumps)

    def _origin(self, flow: Flow, number: int) -> _Origin:
        """Follows a jump's register back in line to where it was set."""
        jump = flow.instructions[number]
        if jump.op0_kind == OpKind.MEMORY:
            return _Origin.POINTER
        register = RegisterExt.full_register(jump.op0_register)
        last = max(0, number - _FARTHEST_BACK)
        for back in range(number - 1, last - 1, -1):
            here, after = flow.instructions[back], flow.instructions[back + 1]
            if here.next_ip != after.ip or after.ip in flow.targets:
                return _Origin.UNKNOWN  # reached from elsewhere too
            if here.flow_control in (FlowControl.CALL, FlowControl.INDIRECT_CALL):
                if register == Register.RAX and here.mnemonic == Mnemonic.CALL:
                    return _Origin.POINTER
                if register not in _KEPT_BY_CALLS:
                    return _Origin.UNKNOWN
            elif here.flow_control not in (FlowControl.NEXT, FlowControl.CONDITIONAL_BRANCH):
                return _Origin.UNKNOWN
            elif self._writes(here, register):
                if here.code in (Code.MOV_R64_RM64, Code.MOV_RM64_R64):
                    if here.op1_kind == OpKind.MEMORY:
                        return _Origin.POINTER
                    register = here.op1_register
                elif here.mnemonic == Mnemonic.POP or (
                    here.mnemonic == Mnemonic.LEA and here.is_ip_rel_memory_operand
                ):
                    return _Origin.POINTER
                elif here.code in (Code.ADD_RM64_R64, Code.ADD_R64_RM64):
                    return self._sum_origin(flow, back)
                else:
                    return _Origin.UNKNOWN
        starts_here = last == 0 and flow.instructions[0].ip not in flow.targets
        return _Origin.POINTER if starts_here else _Origin.UNKNOWN

    def _sum_origin(self, flow: Flow, number: int) -> _Origin:
        """Whether an addition adds a table's address and a sign-extended entry of that table.

        Either the entry is loaded from [base + index * 4] and that base is what is added to it,
        or (gcc -O0) a lea of data is added to a loaded int.
        """
        addition = flow.instructions[number]
        if addition.op1_kind != OpKind.REGISTER:
            return _Origin.UNKNOWN
        pair = (addition.op0_register, addition.op1_register)
        table = Register.NONE
        for back in range(number - 1, max(-1, number - _FARTHEST_BACK), -1):
            here, after = flow.instructions[back], flow.instructions[back + 1]
            if here.next_ip != after.ip or after.ip in flow.targets:
                return _Origin.UNKNOWN
            if here.flow_control != FlowControl.NEXT:
                return _Origin.UNKNOWN
            written = [register for register in pair if self._writes(here, register)]
            if not written:
                continue
            other = pair[0] if written[0] == pair[1] else pair[1]
            if here.code == Code.MOVSXD_R64_RM32 and here.op1_kind == OpKind.MEMORY:
                own = here.memory_base == other and here.memory_index_scale == 4
                own = own and here.memory_displacement < 1 << 31
                return _Origin.TABLE if own or table == other else _Origin.UNKNOWN
            if here.mnemonic == Mnemonic.CDQE and table == other:
                return _Origin.TABLE if self._loads_int(flow, back) else _Origin.UNKNOWN
            is_lea = here.mnemonic == Mnemonic.LEA and here.is_ip_rel_memory_operand
            if not is_lea or self._is_code(here.ip_rel_memory_address):
                return _Origin.UNKNOWN
            table = written[0]
        return _Origin.UNKNOWN

    def _loads_int(self, flow: Flow, number: int) -> bool:
        """Whether the instruction before cdqe loads eax from memory."""
        before = flow.instructions[number - 1]
        return (
            number > 0
            and before.next_ip == flow.instructions[number].ip
            and before.code == Code.MOV_R32_RM32
            and before.op0_register == Register.EAX
            and before.op1_kind == OpKind.MEMORY
        )

    def _table_hits(self, flow: Flow) -> list[int] | None:
        """Which interiors the entries of a function's tables point to; None if it has no table.

        Every lea of data counts as a table if its first entry, taken so, is an address of code.
        It ends where something else begins (Branches.anchor_after).
        """
        low, high = self._branches.low, self._branches.high
        hits: list[int] = []
        nr_tables = 0
        for table in flow.targets:
            first = (
                self._image.read(table, 4) if table % 4 == 0 and not self._is_code(table) else b""
            )
            if (
                len(first) < 4
                or not low <= table + int.from_bytes(first, "little", signed=True) < high
            ):
                continue
            nr_tables += 1
            raw = self._image.read(table, self._branches.anchor_after(table) - table)
            targets = np.frombuffer(raw[: len(raw) & ~3], "<i4").astype(np.int64) + table
            inside = targets[(targets >= low) & (targets < high)]
            hits += inside[self._interior[inside - low]].tolist()
        return hits if nr_tables else None

    def _is_code(self, vaddr: int) -> bool:
        return self._image.functions.containing(vaddr) >= 0

    def _writes(self, instruction: Instruction, register: int) -> bool:
        return any(
            used.access in _WRITES and RegisterExt.full_register(used.register) == register
            for used in self._usage.info(instruction).used_registers()
        )
