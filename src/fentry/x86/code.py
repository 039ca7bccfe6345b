"""A finished piece of machine code: its bytes at their address, its labels, its listing.

The listing is decoded from the bytes, never from what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from iced_x86 import Decoder, Formatter, FormatterSyntax, Instruction

from fentry.x86.decode import branch_target, rip_relative_target

_BYTES_WIDTH = 3 * 10
_TEXT_WIDTH = 40
_DATA_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Code:
    """Machine code to be placed at `origin`, an address of the target.

    `labels` are absolute addresses. The other fields are keyed by offset from the origin:
    `data_spans` are (start, end) of what is not instructions, `remarks` are lines shown before
    the offset, `comments` stand beside the instruction there. `pointers` are where absolute
    addresses of its labels lie, None if it holds distances to fixed addresses as well;
    `alignment` is what it was laid out for.
    """

    origin: int
    data: bytes
    labels: Mapping[str, int] = field(default_factory=dict)
    data_spans: tuple[tuple[int, int], ...] = ()
    remarks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    comments: Mapping[int, str] = field(default_factory=dict)
    pointers: tuple[int, ...] | None = None
    alignment: int = 1

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.origin + len(self.data)

    def moved(self, origin: int) -> Code:
        """The same code for another address.

        Raises ValueError if it cannot lie there: it refers to a fixed address by a distance, or
        would be misaligned.
        """
        distance = origin - self.origin
        if self.pointers is None:
            raise ValueError("this code refers to fixed addresses by their distance")
        if distance % self.alignment:
            raise ValueError(f"{origin:#x} is not aligned to {self.alignment} as this code is")
        data = bytearray(self.data)
        for at in self.pointers:
            pointed = int.from_bytes(data[at : at + 8], "little") + distance
            data[at : at + 8] = pointed.to_bytes(8, "little")
        labels = {name: address + distance for name, address in self.labels.items()}
        return replace(self, origin=origin, data=bytes(data), labels=labels)

    def listing(self, names: Mapping[int, str] | None = None) -> str:
        """One line an instruction: offset from the origin, bytes, assembly, comment.

        Labels of this code and `names`, from absolute address to name, stand for their addresses.
        """
        shown = dict(names or {})
        at_offset: dict[int, list[str]] = {}
        for name, address in self.labels.items():
            shown[address] = name
            at_offset.setdefault(address - self.origin, []).append(name)
        lines: list[str] = []
        for start, end, text in self._pieces(shown):
            lines += [f"{name}:" for name in at_offset.get(start, ())]
            lines += [f"{'':8}; {remark}" for remark in self.remarks.get(start, ())]
            encoded = self.data[start:end].hex(" ")
            comment = f"; {self.comments[start]}" if start in self.comments else ""
            line = f"  {start:04x}  {encoded:{_BYTES_WIDTH}} {text:{_TEXT_WIDTH}} {comment}"
            lines.append(line.rstrip())
        lines += [f"{name}:" for name in at_offset.get(len(self.data), ())]
        return "\n".join(lines) + "\n"

    def _pieces(self, shown: Mapping[int, str]) -> Iterator[tuple[int, int, str]]:
        position = 0
        for start, end in (*self.data_spans, (len(self.data), len(self.data))):
            decoder = Decoder(64, self.data[position:start], ip=self.origin + position)
            for instruction in decoder:
                here = instruction.ip - self.origin
                yield here, here + instruction.len, disassemble(instruction, shown)
            yield from self._data_pieces(start, end, shown)
            position = end

    def _data_pieces(
        self, start: int, end: int, shown: Mapping[int, str]
    ) -> Iterator[tuple[int, int, str]]:
        for here in range(start, end, _DATA_COLUMNS):
            piece = self.data[here : min(here + _DATA_COLUMNS, end)]
            value = int.from_bytes(piece, "little")
            match len(piece):
                case 8:
                    text = f"dq {shown.get(value, hex(value))}"
                case 4:
                    text = f"dd {value:#x}"
                case _:
                    text = "db " + ", ".join(f"{byte:#04x}" for byte in piece)
            yield here, here + len(piece), text


def disassemble(instruction: Instruction, names: Mapping[int, str] | None = None) -> str:
    """The instruction in NASM syntax, with names in place of the addresses they are given for."""
    text: str = _FORMATTER.format_all_operands(instruction)
    for address in (branch_target(instruction), rip_relative_target(instruction)):
        if names and address is not None and address in names:
            text = text.replace(hex(address), names[address])
    return f"{_FORMATTER.format_mnemonic(instruction):7} {text}".rstrip()


def _formatter() -> Formatter:
    formatter = Formatter(FormatterSyntax.NASM)
    formatter.hex_prefix = "0x"
    formatter.hex_suffix = ""
    formatter.uppercase_hex = False
    formatter.space_after_operand_separator = True
    formatter.space_between_memory_add_operators = True
    formatter.space_between_memory_mul_operators = True
    formatter.branch_leading_zeros = False
    formatter.show_branch_size = False
    formatter.signed_immediate_operands = False
    formatter.small_hex_numbers_in_decimal = True
    formatter.rip_relative_addresses = False
    return formatter


_FORMATTER = _formatter()
