"""A C function with the kernel's signature, compiled to code that lies anywhere in a target.

gcc compiles one source without any library; what it makes is checked and laid out here: code with
its constants, and writable data, each in one piece, and the places where one refers to the other.
docs/design/callbacks.md says what is refused.
"""

from __future__ import annotations

import io
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fentry.errors import BadInput
from fentry.x86.calls import CodeTraits, look_at

ALIGNMENT = 64  # of both pieces; no section may ask for more
LONGEST_STACK_BYTES = 1024  # of the function and all it calls: alternate stacks are small
LONGEST_BYTES = 1 << 20  # of each piece
LONGEST_NAME = 24  # bytes; what the registry keeps of it

_FLAGS = (
    "-std=gnu11", "-O2", "-g0", "-Wall", "-Werror=implicit-function-declaration",
    "-ffreestanding", "-fno-builtin", "-fPIE", "-fvisibility=hidden", "-fno-common",
    "-fno-stack-protector", "-fno-stack-clash-protection", "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-exceptions",
    "-fno-jump-tables", "-fno-tree-loop-distribute-patterns", "-minline-all-stringops",
    "-fno-instrument-functions", "-mno-red-zone", "-fstack-usage",
)  # fmt: skip
_NO_VECTORS = ("-mgeneral-regs-only",)

# System V ABI 4.4.1: relocation types that can be done here, and bytes of the place.
_ADDRESS = 1  # R_X86_64_64
_DISTANCES = {2: 4, 4: 4, 24: 8}  # R_X86_64_PC32, _PLT32, _PC64
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR, _SHF_TLS = 0x1, 0x2, 0x4, 0x400
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Fixup:
    """A place that holds the address of another one, or the distance to it.

    `offset` counts from the beginning of the code (`in_code`) or of the data, `target` likewise
    with `to_code`; a distance of `size` bytes counts from the place itself, an address has `size`
    8 and `is_address`.
    """

    in_code: bool
    offset: int
    to_code: bool
    target: int
    size: int
    is_address: bool


@dataclass(frozen=True, slots=True)
class CFunction:
    """Compiled and checked: `code` is to be executable, `data` writable, both aligned to 64 bytes.

    `entry` is the offset of the function in the code, `stack_bytes` the most stack that it and what
    it calls use. `traits` is what its instructions touch.
    """

    name: str
    code: bytes
    data: bytes
    entry: int
    stack_bytes: int
    traits: CodeTraits
    fixups: tuple[Fixup, ...] = ()
    is_direct: ClassVar[bool] = False

    @classmethod
    def compile(
        cls, source: str, name: str = "callback", *, vectors: bool = False, compiler: str = "gcc"
    ) -> CFunction:
        """The function `name` of a C source, which sees ftrace.h.

        With `vectors` the compiler may use vector registers (and `double`); trampolines then save
        them all. Raises BadInput with what is wrong with the source.
        """
        if not IDENTIFIER.fullmatch(name) or len(name) > LONGEST_NAME:
            raise BadInput(f"{name!r} is no name of a C function", remedy="1 to 24 letters")
        image, stack_bytes = compile_object(source, name, vectors, compiler)
        function = lay_out(image, name, stack_bytes)
        if stack_bytes > LONGEST_STACK_BYTES:
            raise BadInput(
                f"{name} uses {stack_bytes} bytes of stack, {LONGEST_STACK_BYTES} is the most",
                cause="it runs on the stack of whatever thread calls, also on alternate ones",
                remedy="static variables, or memory of op->private",
            )
        return function

    def placed(self, code_address: int, data_address: int) -> tuple[bytes, bytes]:
        """Code and data as they are to be written at these addresses of the target.

        Raises ValueError if they lie too far from each other.
        """
        pieces = {True: bytearray(self.code), False: bytearray(self.data)}
        bases = {True: code_address, False: data_address}
        for f in self.fixups:
            value = bases[f.to_code] + f.target
            if not f.is_address:
                value -= bases[f.in_code] + f.offset
            limit = 1 << (8 * f.size - 1)
            if not f.is_address and not -limit <= value < limit:
                raise ValueError(f"{self.name}: code and data are out of reach of each other")
            word = (value % (1 << (8 * f.size))).to_bytes(f.size, "little")
            pieces[f.in_code][f.offset : f.offset + f.size] = word
        return bytes(pieces[True]), bytes(pieces[False])


def compile_object(source: str, name: str, vectors: bool, compiler: str) -> tuple[bytes, int]:
    """The object file of a C source, and the bytes of stack of all its functions together."""
    with tempfile.TemporaryDirectory(prefix="fentry-") as directory:
        place = Path(directory)
        (place / f"{name}.c").write_text(f'#include "ftrace.h"\n#line 1 "{name}.c"\n{source}\n')
        here = str(Path(__file__).parent)
        words = [compiler, *_FLAGS, *(() if vectors else _NO_VECTORS), f"-I{here}", "-c"]
        try:
            done = subprocess.run(
                [*words, f"{name}.c", "-o", f"{name}.o"],
                cwd=place, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            raise BadInput(
                f"cannot compile {name}: no {compiler} on this machine", remedy="apt install gcc"
            ) from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error:" in line]
            raise BadInput(
                f"cannot compile {name}: {(lines or done.stderr.splitlines() or ['?'])[0]}",
                cause="the compiler refuses it",
                remedy="vectors=True for floating point" if not vectors else "mend the source",
            )
        usage = place / f"{name}.su"
        return (place / f"{name}.o").read_bytes(), _stack_bytes(usage.read_text(), name)


def _stack_bytes(usage: str, name: str) -> int:
    # Lines of -fstack-usage: place, bytes without the return address, "static" or "dynamic".
    total = 0
    for line in usage.splitlines():
        place, count, kind = line.split("\t")
        if kind != "static":
            raise BadInput(
                f"{name} uses an unknown amount of stack", cause=f"{place}: arrays of any length"
            )
        total += int(count) + 8
    return total


@dataclass(slots=True)
class _Layout:
    # Where sections of the object file come to lie: (in code, offset) by number.
    image: bytearray
    data: bytearray
    places: dict[int, tuple[bool, int]]
    code_spans: list[tuple[int, int]]


def lay_out(image: bytes, name: str, stack_bytes: int, *, direct: bool = False) -> CFunction:
    """The function `name` of an object file, checked; `direct` as of look_at()."""
    from elftools.elf.elffile import ELFFile  # slow to import, and who only records needs none

    elf: Any = ELFFile(io.BytesIO(image))
    layout = _Layout(bytearray(), bytearray(), {}, [])
    sections = list(elf.iter_sections())
    for i, section in enumerate(sections):
        _lay_section(layout, i, section, name)
    symbols = list(elf.get_section_by_name(".symtab").iter_symbols())
    _refuse_undefined(symbols, name)
    fixups = tuple(
        _fixup(layout, symbols, section["sh_info"], row, name)
        for section in sections
        if section["sh_type"] == "SHT_RELA" and section["sh_info"] in layout.places
        for row in section.iter_relocations()
    )
    entry = _entry(layout, symbols, name)
    traits = CodeTraits()
    for start, end in layout.code_spans:
        traits |= look_at(bytes(layout.image[start:end]), start, name, direct=direct)
    for piece in (layout.image, layout.data):
        if len(piece) > LONGEST_BYTES:
            raise BadInput(f"{name} has {len(piece)} bytes, {LONGEST_BYTES} is the most")
    return CFunction(
        name, bytes(layout.image), bytes(layout.data), entry, stack_bytes, traits, fixups
    )


def _lay_section(layout: _Layout, number: int, section: Any, name: str) -> None:
    header = section.header
    flags, count = header["sh_flags"], header["sh_size"]
    if not flags & _SHF_ALLOC or not count or section.name == ".note.gnu.property":
        return
    if flags & _SHF_TLS:
        raise BadInput(
            f"{name} has thread local variables",
            cause="there is no storage for them in a program that runs already",
            remedy="op->private, or a plain static variable",
        )
    align = max(1, header["sh_addralign"])
    if align > ALIGNMENT:
        raise BadInput(f"{name}: {align} bytes of alignment, {ALIGNMENT} is the most")
    in_code = not flags & _SHF_WRITE
    piece = layout.image if in_code else layout.data
    filler = b"\xcc" if in_code else b"\0"
    piece += filler * (-len(piece) % align)
    layout.places[number] = in_code, len(piece)
    if flags & _SHF_EXECINSTR:
        layout.code_spans.append((len(piece), len(piece) + count))
    if len(piece) + count > LONGEST_BYTES:
        raise BadInput(f"{name} has more than {LONGEST_BYTES} bytes of code or data")
    empty = header["sh_type"] == "SHT_NOBITS"
    piece += bytes(count) if empty else section.data()


def _refuse_undefined(symbols: Sequence[Any], name: str) -> None:
    wanted = sorted(_undefined(symbols))
    if wanted:
        raise BadInput(
            f"{name} uses what it does not define: {', '.join(wanted)}",
            cause="a callback runs without any library",
            remedy="define it in the same source",
        )


def _undefined(symbols: Sequence[Any]) -> Iterator[str]:
    for symbol in symbols:
        if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name:
            yield symbol.name


def _entry(layout: _Layout, symbols: Sequence[Any], name: str) -> int:
    for symbol in symbols:
        if symbol.name == name and symbol["st_info"]["type"] == "STT_FUNC":
            place = layout.places.get(symbol["st_shndx"])
            if place is not None:
                return place[1] + int(symbol["st_value"])
    raise BadInput(f"the source defines no function {name}")


def _fixup(layout: _Layout, symbols: Sequence[Any], section: int, row: Any, name: str) -> Fixup:
    entry = row.entry
    kind = entry["r_info_type"]
    symbol = symbols[entry["r_info_sym"]]
    place = layout.places.get(symbol["st_shndx"])
    if place is None or (kind not in _DISTANCES and kind != _ADDRESS):
        raise BadInput(
            f"{name} cannot be placed: relocation {kind} for {symbol.name or 'a section'}",
            cause="only distances within the function and its data are known before it lies there",
        )
    in_code, start = layout.places[section]
    if in_code and kind == _ADDRESS:
        raise BadInput(f"{name} has an absolute address in its code or constants")
    to_code, begin = place
    target = begin + symbol["st_value"] + entry["r_addend"]
    size = _DISTANCES.get(kind, 8)
    return Fixup(in_code, start + entry["r_offset"], to_code, target, size, kind == _ADDRESS)
