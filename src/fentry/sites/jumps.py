"""Where computed jumps can go: `jmp reg` and `jmp [memory]`.

An absolute address of code can come from a relocation or a word of data (code_pointers), from a
lea, or from a table of 32-bit offsets to which an address is added (the jump tables of gcc and
clang for position independent code). The first two are checked for the whole image by find.py, so
a jump to a pointer that was only loaded, passed in or returned needs nothing further. Of the
third all entries of the table are read, up to the next address that some lea makes. What was on the
stack may be any of these that the function makes. A jump to an address computed in any other way
is unknown. Where the addresses come from: origins.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from iced_x86 import FlowControl, Instruction, Mnemonic, OpKind
from numpy.typing import NDArray

from fentry.sites.branches import Branches
from fentry.sites.nop import ENDBR64
from fentry.sites.origins import Constant, Origin, Origins, Pointer, Stored, Sum, loaded
from fentry.symbols.elf import ElfImage
from fentry.symbols.elf_file import ET_EXEC

_IMMEDIATES = (OpKind.IMMEDIATE32, OpKind.IMMEDIATE32TO64)


@dataclass(frozen=True, slots=True)
class Reach:
    """What the computed jumps of one function reach.

    `into`: pairs (vaddr of the jump, its target) that hit a window's interior. `unknown`: the
    vaddr of a jump whose targets could not be established, if there is one. `loops`: pairs whose
    target is the entry of the function itself, or what follows its endbr64.
    """

    into: tuple[tuple[int, int], ...]
    unknown: int | None
    loops: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """What the target of a jump can be, the addresses that its function makes, whether some of
    them are in the middle of code, and where the function is entered."""

    origins: frozenset[Origin]
    made: list[int]
    has_labels: bool
    entries: frozenset[int]


class JumpCheck:
    """Judges computed jumps against `interior`, a Branches.blank() with the windows marked.

    `parts`: bool[n], which functions of the image are cold parts of others.
    """

    def __init__(
        self,
        image: ElfImage,
        branches: Branches,
        interior: NDArray[np.bool_],
        parts: NDArray[np.bool_],
    ) -> None:
        self._image = image
        self._branches = branches
        self._interior = interior
        self._parts = parts

    def row(self, row: int) -> Reach:
        """What the jumps of function number `row` reach."""
        flow = self._branches.flow(row)
        into: list[tuple[int, int]] = []
        loops: list[tuple[int, int]] = []
        for jump, found in self._origins(row):
            targets = self._targets(found)
            if targets is None:
                return Reach(tuple(into), jump, tuple(loops))
            into += [(jump, target) for target in self._hits(targets)]
            loops += [(jump, target) for target in found.entries.intersection(targets)]
        if not flow.trusted and not flow.jumps:
            return Reach(tuple(into), flow.start)  # the jump may hide in what did not decode
        return Reach(tuple(into), None, tuple(loops))

    def has_tables(self, row: int) -> bool:
        """Whether function number `row` has a computed jump that may be a switch's."""
        return any(
            not isinstance(origin, Pointer | Constant | Stored)
            for _, found in self._origins(row)
            for origin in found.origins
        )

    def _origins(self, row: int) -> Iterable[tuple[int, _Found]]:
        """(vaddr of a computed jump, what its target can be) for each jump of a function."""
        flow = self._branches.flow(row)
        jumps = [flow.instructions[number] for number in flow.jumps]
        if all(jump.op0_kind == OpKind.MEMORY and loaded(jump) == Pointer() for jump in jumps):
            return []
        flows = [self._branches.flow(member) for member in self._family(row)]
        instructions = [i for member in flows for i in member.instructions]
        made = _addresses_made(instructions, is_fixed=self._image.type == ET_EXEC)
        switched = {t for table in made for t in self._table(table, table)}
        entries = frozenset(f.start for f in flows if not self._parts[self._row(f.start)])
        origins = Origins(instructions, entries or frozenset((flow.start,)), frozenset(switched))
        again = {f.start for f in flows if f.start in entries} | {
            f.start + len(ENDBR64)
            for f in flows
            if f.start in entries and self._image.read(f.start, len(ENDBR64)) == ENDBR64
        }
        labels = [address for address in made if self._is_code(address)]
        labels = [a for a in labels if not self._is_entry(a)]
        return [
            (jump.ip, _Found(origins.of_jump(number), made, bool(labels), frozenset(again)))
            for number, jump in enumerate(instructions)
            if jump.flow_control == FlowControl.INDIRECT_BRANCH and self._row(jump.ip) == row
        ]

    def _family(self, row: int) -> list[int]:
        """A function and its cold parts, of which `row` is one: rows."""
        wholes = [row]
        if self._parts[row]:
            wholes = sorted(self._jump_into.get(row, ()))
        family = dict.fromkeys((*wholes, row))
        for whole in wholes:
            reached = {self._row(target) for target in self._branches.flow(whole).targets}
            family |= dict.fromkeys(sorted(r for r in reached if r >= 0 and self._parts[r]))
        return list(family)

    @cached_property
    def _jump_into(self) -> dict[int, set[int]]:
        """The functions that branch into each cold part with a computed jump, found together."""
        wanted = self._branches.blank()
        for row in self._branches.computed_jump_rows():
            if self._parts[row]:
                part = self._branches.flow(row)
                wanted[part.start - self._branches.low :][: part.size] = True
        into: dict[int, set[int]] = {}
        for source, target in self._branches.confirmed(self._branches.candidates_into(wanted)):
            home = self._row(source)
            if home >= 0 and not self._parts[home]:
                into.setdefault(self._row(target), set()).add(home)
        return into

    def _row(self, vaddr: int) -> int:
        return self._image.functions.containing(vaddr)

    def _targets(self, found: _Found) -> list[int] | None:
        """Where a jump goes that is not checked elsewhere; None if that cannot be established.

        Some pairs of a table and a base may be none: of registers that hold something else on
        another way.
        """
        sums = [origin for origin in found.origins if isinstance(origin, Sum)]
        known = (Pointer, Constant, Sum, Stored)
        if not all(isinstance(origin, known) for origin in found.origins):
            return None
        stored = []
        if Stored() in found.origins:
            if found.has_labels:
                return None  # a word of a table may have been added to one of them
            stored = [target for table in found.made for target in self._table(table, table)]
        targets = []
        for origin in sums:
            tables = found.made if origin.table is None else [origin.table]
            for table in tables:
                bases = [table, *found.made] if origin.base is None else [origin.base]
                if origin.base is None and origin.table is None:
                    bases = [table]
                for base in bases:
                    targets += self._table(table, base)
        return targets + stored if targets or not sums else None

    def _table(self, table: int, base: int) -> list[int]:
        """Where the entries of a table lead; none if it is not data, or its first leads nowhere.

        It ends where something else begins (Branches.anchor_after).
        """
        low, high = self._branches.low, self._branches.high
        if table % 4 or self._is_code(table):
            return []
        first = self._image.read(table, 4)
        if len(first) < 4 or not low <= base + int.from_bytes(first, "little", signed=True) < high:
            return []
        raw = self._image.read(table, self._branches.anchor_after(table) - table)
        targets = np.frombuffer(raw[: len(raw) & ~3], "<i4").astype(np.int64) + base
        inside: list[int] = targets[(targets >= low) & (targets < high)].tolist()
        return inside

    def _hits(self, targets: list[int]) -> list[int]:
        low = self._branches.low
        return [target for target in targets if self._interior[target - low]]

    def _is_entry(self, vaddr: int) -> bool:
        row = self._row(vaddr)
        return row >= 0 and int(self._image.functions.rows["vaddr"][row]) == vaddr

    def _is_code(self, vaddr: int) -> bool:
        return self._image.functions.containing(vaddr) >= 0


def _addresses_made(instructions: Iterable[Instruction], *, is_fixed: bool) -> list[int]:
    """What lea makes the address of; in a program at fixed addresses immediates may be one, too."""
    made = []
    for instruction in instructions:
        if instruction.mnemonic == Mnemonic.LEA and instruction.is_ip_rel_memory_operand:
            made.append(instruction.ip_rel_memory_address)
        elif is_fixed and instruction.op_count == 2 and instruction.op1_kind in _IMMEDIATES:
            made.append(instruction.immediate(1))
    return made
