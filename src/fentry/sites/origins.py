"""Where the target of a computed jump comes from: reaching definitions over one function.

The jump's register is followed back over every way that leads to the jump, through copies, to
what made it. A call keeps every register, and may return a pointer in rax and rdx (System V psABI
3.2.3): a value that lives across a call is the one from before, whatever the callee clobbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from iced_x86 import (
    Code,
    FlowControl,
    Instruction,
    InstructionInfoFactory,
    Mnemonic,
    OpAccess,
    OpKind,
    Register,
    Register_,
    RegisterExt,
)

_MOST_STEPS = 20_000
_WRITES = frozenset(
    (OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE, OpAccess.READ_COND_WRITE)
)
_CALLS = frozenset((FlowControl.CALL, FlowControl.INDIRECT_CALL))
_COMPUTED = FlowControl.INDIRECT_BRANCH
# What never goes on with the instruction behind it.
_LEAVES = frozenset((FlowControl.UNCONDITIONAL_BRANCH, _COMPUTED, FlowControl.RETURN))
_BRANCHES = frozenset((FlowControl.UNCONDITIONAL_BRANCH, FlowControl.CONDITIONAL_BRANCH))
_CMOVS = frozenset(
    value for name, value in vars(Code).items() if name.startswith("CMOV") and "_R64_" in name
)
_COPIES = frozenset((Code.MOV_R64_RM64, Code.MOV_RM64_R64))
_INT_COPIES = frozenset((Code.MOV_R32_RM32, Code.MOV_RM32_R32, Code.MOVSXD_R64_RM32))
_CLEARS = frozenset((Code.XOR_R32_RM32, Code.XOR_RM32_R32, Code.XOR_R64_RM64, Code.XOR_RM64_R64))
_ADDITIONS = frozenset((Code.ADD_RM64_R64, Code.ADD_R64_RM64))
_CONSTANTS = frozenset((Code.MOV_R64_IMM64, Code.MOV_RM64_IMM32, Code.MOV_R32_IMM32))
# In the thread's tcbhead_t (glibc's sysdeps/x86_64/nptl/tls.h): the value that is checked for
# overwritten stacks, and the key with which pointers are hidden.
_STACK_GUARD = 0x28
_POINTER_GUARD = 0x30


@dataclass(frozen=True, slots=True)
class Pointer:
    """An address that was loaded, passed in or returned."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An address that the function may have put on its stack itself."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that an instruction holds."""

    value: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A signed 32-bit word of the table at `table`; None: of one that `register` pointed to."""

    table: int | None
    register: int


@dataclass(frozen=True, slots=True)
class Sum:
    """A word of a table and what it is relative to; None: a value the function keeps somewhere."""

    base: int | None
    table: int | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Anything else."""


Origin: TypeAlias = Pointer | Stored | Constant | Entry | Sum | Unknown


class Origins:
    """The values of one function whose instructions are given, its cold parts' among them.

    `entries`: where it is called. `switched`: addresses that its computed jumps may go to.
    """

    def __init__(
        self, instructions: Sequence[Instruction], entries: frozenset[int], switched: frozenset[int]
    ) -> None:
        self._instructions = instructions
        self._entries = entries
        self._switched = switched
        self._usage = InstructionInfoFactory()

    def of_jump(self, number: int) -> frozenset[Origin]:
        """What the target of the computed jump instructions[number] can be."""
        jump = self._instructions[number]
        if jump.op0_kind == OpKind.MEMORY:
            return _just(loaded(jump))
        return self._values(number, _full(jump.op0_register))

    def _values(self, number: int, register: int, *, in_sum: bool = False) -> frozenset[Origin]:
        """What `register` can hold before instruction `number`."""
        found: set[Origin] = set()
        seen = {(number, register)}
        waiting = [(number, register)]
        while waiting:
            number, register = waiting.pop()
            if self._instructions[number].ip in self._entries:
                found.add(Pointer())
            for before in self._before[number]:
                made, sources = self._made(before, register, in_sum)
                found |= made
                places = {(before, source) for source in sources} - seen
                seen |= places
                waiting += places
            if len(seen) > _MOST_STEPS or Unknown() in found:
                return frozenset((Unknown(),))
        return frozenset(found)

    def _made(
        self, number: int, register: int, in_sum: bool
    ) -> tuple[frozenset[Origin], tuple[int, ...]]:
        """What an instruction leaves in `register`: values it makes, registers it copies."""
        here = self._instructions[number]
        if here.flow_control in _CALLS:
            returned = register in (Register.RAX, Register.RDX)
            return _just(Pointer()) if returned else frozenset(), (register,)
        if not self._writes(here, register):
            return frozenset(), (register,)
        loads = here.op1_kind == OpKind.MEMORY
        source = () if loads else (_full(here.op1_register),)
        if here.code in _COPIES or here.code in _CMOVS:
            kept = (register,) if here.code in _CMOVS else ()
            return (_just(loaded(here)), kept) if loads else (frozenset(), (*kept, *source))
        if here.code in _CONSTANTS:
            return _just(Constant(here.immediate(1))), ()
        hidden = here.mnemonic == Mnemonic.XOR and _is_thread_word(here, _POINTER_GUARD)
        if here.mnemonic == Mnemonic.POP or hidden:
            return _just(Pointer() if hidden else Stored()), ()
        if here.mnemonic == Mnemonic.LEA and here.is_ip_rel_memory_operand:
            return _just(Constant(here.ip_rel_memory_address)), ()
        if here.code in _CLEARS and source == (register,):
            return _just(Constant(0)), ()
        if here.mnemonic == Mnemonic.SUB and _is_thread_word(here, _STACK_GUARD):
            return frozenset(), ()  # zero, or the program ends
        if in_sum:
            return self._int(number, register)
        if here.code in _ADDITIONS:
            return self._sum(number, (register, *source)), ()
        if here.mnemonic == Mnemonic.LEA and _is_sum(here):
            return self._sum(number, (_full(here.memory_base), _full(here.memory_index))), ()
        return _just(Unknown()), ()

    def _sum(self, number: int, parts: Sequence[int]) -> frozenset[Origin]:
        """The sums of two registers, or of one and a word of memory."""
        values = [self._values(number, part, in_sum=True) for part in parts]
        if len(values) == 1:
            parts, values = (*parts, Register.NONE), [*values, _just(Pointer())]
        if not any(isinstance(value, Entry) for value in values[0]):
            parts, values = parts[::-1], values[::-1]
        return frozenset(
            _added(entry, address, parts[1]) for entry in values[0] for address in values[1]
        )

    def _int(self, number: int, register: int) -> tuple[frozenset[Origin], tuple[int, ...]]:
        """The same as _made for the words of tables, on their way to a sum."""
        here = self._instructions[number]
        if here.mnemonic == Mnemonic.CDQE:
            return frozenset(), (register,)
        if here.code not in _INT_COPIES:
            return _just(Unknown()), ()
        if here.op1_kind == OpKind.REGISTER:
            return frozenset(), (_full(here.op1_register),)
        base, index = _full(here.memory_base), _full(here.memory_index)
        if here.is_ip_rel_memory_operand:
            return _just(Entry(here.ip_rel_memory_address, base)), ()
        if base == Register.NONE and here.memory_index_scale == 4:
            return _just(Entry(here.memory_displacement, base)), ()
        if index == Register.NONE or here.memory_index_scale not in (1, 4):
            return _just(Unknown()), ()
        found: set[Origin] = set()
        for part in (base, index) if here.memory_index_scale == 1 else (base,):
            # A displacement may lead into a table that begins at the register, or to one before
            # it: where the register points something ends either way.
            moved = here.memory_displacement
            for value in self._addresses(number, part):
                found.add(Entry(value, part))
                if value is not None:
                    found.add(Entry((value + moved) % (1 << 64), part))
        return frozenset(found), ()

    def _addresses(self, number: int, register: int) -> set[int | None]:
        """The constants a register can hold, and None if it can hold something else."""
        values = self._values(number, register, in_sum=True)
        return {value.value if isinstance(value, Constant) else None for value in values}

    # -- the flow ------------------------------------------------------------------------------

    @cached_property
    def _before(self) -> list[list[int]]:
        """For each instruction the numbers of those that go on with it.

        What is reached by nothing else is padding, or a landing pad, entered from a call, or the
        target of a computed jump.
        """
        numbers = {instruction.ip: at for at, instruction in enumerate(self._instructions)}
        before: list[list[int]] = [[] for _ in self._instructions]
        calls, computed = [], []
        for number, here in enumerate(self._instructions):
            flow = here.flow_control
            if flow not in _LEAVES and here.next_ip in numbers:
                before[numbers[here.next_ip]].append(number)
            if flow in _BRANCHES and here.near_branch_target in numbers:
                before[numbers[here.near_branch_target]].append(number)
            if flow in _CALLS:
                calls.append(number)
            elif flow == _COMPUTED:
                computed.append(number)
        for number, here in enumerate(self._instructions):
            if here.ip in self._switched:
                before[number] += computed
            elif not before[number] and here.ip not in self._entries and not _is_padding(here):
                before[number] += calls + computed
        return before

    def _writes(self, instruction: Instruction, register: int) -> bool:
        return any(
            used.access in _WRITES and _full(used.register) == register
            for used in self._usage.info(instruction).used_registers()
        )


def loaded(instruction: Instruction) -> Origin:
    """What an instruction with an operand in memory loads, or jumps through."""
    stack = instruction.memory_base in (Register.RSP, Register.RBP)
    return Stored() if stack else Pointer()


def _added(entry: Origin, address: Origin, register: int) -> Origin:
    """A word of a table plus an address that was in `register`.

    That both came from the same register shows a table, whatever is known of it.
    """
    if not isinstance(entry, Entry):
        return Unknown()
    if isinstance(address, Constant):
        return Sum(address.value, entry.table)
    same = entry.register == register
    if not same and (entry.table is None or not isinstance(address, Pointer | Stored)):
        return Unknown()
    return Sum(None, entry.table)


def _is_sum(lea: Instruction) -> bool:
    """Whether it adds two registers and nothing else."""
    plain = lea.memory_index_scale == 1 and lea.memory_displacement == 0
    return (
        lea.code == Code.LEA_R64_M
        and plain
        and Register.NONE not in (lea.memory_base, lea.memory_index)
    )


def _is_thread_word(instruction: Instruction, offset: int) -> bool:
    """Whether the second operand is fs:[offset]."""
    return instruction.memory_segment == Register.FS and instruction.memory_displacement == offset


def _is_padding(instruction: Instruction) -> bool:
    # xchg ax, ax is one too, and so are the longer forms with operands
    return instruction.mnemonic in (Mnemonic.NOP, Mnemonic.INT3)


def _full(register: Register_) -> int:
    return RegisterExt.full_register(register)


def _just(origin: Origin) -> frozenset[Origin]:
    return frozenset((origin,))
