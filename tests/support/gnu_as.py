"""Operands as GNU as writes them, and one run of it for many instructions.

Each instruction's length is emitted into a section of its own, so that the bytes can be taken
apart; one that the assembler refuses has length 0 (`-Z` goes on after errors).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fentry.x86.operands import Memory
from fentry.x86.registers import Register, RegisterKind
from tests.support.machine import need_tool

Operand = Register | Memory | int
_SIZES = {0: "", 8: "byte", 16: "word", 32: "dword", 64: "qword", 80: "tbyte"}
_SIZES |= {128: "xmmword", 256: "ymmword", 512: "zmmword"}


@dataclass(frozen=True, slots=True)
class Case:
    """One instruction, as it is given to Asm."""

    mnemonic: str
    operands: tuple[Operand, ...] = ()
    lock: bool = False
    rep: bool = False
    repne: bool = False
    mask: Register | None = None
    zeroing: bool = False

    def text(self) -> str:
        """The line in Intel syntax without register prefixes."""
        words = ["lock"] * self.lock + ["rep"] * self.rep + ["repne"] * self.repne
        operands = [operand_text(operand) for operand in self.operands]
        if self.mask is not None:
            operands[0] += f"{{{self.mask.name}}}" + "{z}" * self.zeroing
        return " ".join([*words, self.mnemonic, ", ".join(operands)]).strip()


def operand_text(operand: Operand) -> str:
    if isinstance(operand, int):
        return str(operand)
    if isinstance(operand, Register):
        return f"st({operand.number})" if operand.kind is RegisterKind.X87 else operand.name
    address = operand.address
    terms = [address.base.name] if address.base else []
    terms += [f"{address.index.name}*{address.scale}"] if address.index else []
    inner = "+".join(terms) + (f"{address.displacement:+d}" if address.displacement else "")
    size = f"{_SIZES[operand.bits]} ptr " if operand.bits else ""
    segment = f"{operand.segment.name}:" if operand.segment else ""
    # Without a register and a segment, `[8]` would be the number 8 to the assembler.
    return f"{size}{segment or ('' if terms else 'ds:')}[{inner or 0}]"


def assemble(
    cases: Sequence[Case], programs: Mapping[str, str], directory: Path
) -> tuple[list[bytes], dict[str, bytes]]:
    """The bytes of each case (empty if refused), and of each program of several lines."""
    as_, objcopy = need_tool("as"), need_tool("objcopy")
    lines = [".intel_syntax noprefix", '.section .sizes, "a"', '.section .cases, "ax"']
    for case in cases:
        lines += ["1:", case.text(), "2:"]
        lines += [".pushsection .sizes", ".byte 2b-1b", ".popsection"]
    for name, text in programs.items():
        lines += [f'.section .{name}, "ax"', text]
    source, object_ = directory / "cases.s", directory / "cases.o"
    source.write_text("\n".join(lines) + "\n")
    subprocess.run([as_, "--64", "-Z", "-o", object_, source], capture_output=True, check=False)

    def section(name: str) -> bytes:
        binary = directory / f"{name}.bin"
        command = [objcopy, "-O", "binary", "-j", f".{name}", str(object_), str(binary)]
        subprocess.run(command, check=True, capture_output=True)
        return binary.read_bytes()

    sizes, code, found, position = section("sizes"), section("cases"), [], 0
    assert len(sizes) == len(cases)
    for size in sizes:
        found.append(code[position : position + size])
        position += size
    return found, {name: section(name) for name in programs}
