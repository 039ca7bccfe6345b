"""The functions of one image: a row an address, with every name it goes by.

Not here: where the image is mapped (module.py), and whether a function can be traced (sites/).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fentry.symbols.elf_file import SYMBOL_DTYPE, ElfFile


class FunctionKind(IntEnum):
    """What says that there is a function."""

    FUNC = 1  # a symbol of STT_FUNC
    IFUNC = 2  # a symbol of STT_GNU_IFUNC: the code is a resolver
    FRAME = 3  # only a frame description in .eh_frame


# vaddr; size in bytes, up to the next symbol or the section's end where size_known is false;
# name: offset into the string table number `table` (NO_TABLE: named after the address);
# kind: FunctionKind; bind: STB_ of the preferred name; resolver: that is an STT_GNU_IFUNC's, whose
# code is not here.
FUNCTION_DTYPE = np.dtype(
    [
        ("vaddr", "<u8"),
        ("size", "<u8"),
        ("name", "<u4"),
        ("table", "u1"),
        ("kind", "u1"),
        ("bind", "u1"),
        ("size_known", "?"),
        ("resolver", "?"),
    ]
)
NO_TABLE = 255
RESOLVER = ".resolver"

_STB_LOCAL = 0
_STT_NOTYPE, _STT_FUNC, _STT_GNU_IFUNC = 0, 2, 10
_SHN_UNDEF, _SHN_LORESERVE = 0, 0xFF00


class Functions:
    """FUNCTION_DTYPE rows sorted by vaddr, one an address, and their names, read when asked for.

    `read_names` gives the symbol of each row, anything for those of NO_TABLE: they are named
    `stem` and how far behind `low` they begin.
    """

    def __init__(
        self,
        rows: NDArray[np.void],
        read_names: Callable[[], list[str]],
        stem: str,
        low: int,
        aliases: dict[int, list[str]],
        labels: NDArray[np.uint64],
    ) -> None:
        self.rows = rows
        # row number -> its other names, best first
        self.aliases = aliases
        # vaddr of every symbol of code that is not a row: uint64[n] sorted
        self.labels = labels
        self._read_names = read_names
        self._stem = stem
        self._low = low

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def names(self) -> list[str]:
        """The preferred name of each row: global before local, shortest, then alphabetical.

        What chooses the code of an STT_GNU_IFUNC symbol is called NAME.resolver.
        """
        stem, low = self._stem, self._low
        names = [
            name + RESOLVER if resolver else name
            for name, resolver in zip(self.own_names, self.rows["resolver"].tolist(), strict=True)
        ]
        nameless = np.flatnonzero(self.rows["table"] == NO_TABLE)
        vaddrs = self.rows["vaddr"][nameless].tolist()
        for row, vaddr in zip(nameless.tolist(), vaddrs, strict=True):
            names[row] = f"{stem}+0x{vaddr - low:x}"
        return names

    @cached_property
    def own_names(self) -> list[str]:
        """The symbol of each row as the file has it, without version; "" where it has none."""
        return self._read_names()

    @cached_property
    def ifuncs(self) -> dict[int, list[str]]:
        """The STT_GNU_IFUNC symbols by the vaddr of their resolver: what callers call it."""
        found = {}
        for row in np.flatnonzero(self.rows["kind"] == FunctionKind.IFUNC).tolist():
            names = [self.names[row], *self.aliases.get(row, ())]
            found[int(self.rows["vaddr"][row])] = [
                name.removesuffix(RESOLVER) for name in names if name.endswith(RESOLVER)
            ]
        return found

    @cached_property
    def ends(self) -> NDArray[np.uint64]:
        """One past the last byte of each row, uint64[n]."""
        ends: NDArray[np.uint64] = self.rows["vaddr"] + self.rows["size"]
        return ends

    def containing(self, vaddr: int) -> int:
        """The row whose range holds an address, the last one to start if several do, else -1."""
        starts, ends, reach = self._bounds
        row = bisect_right(starts, vaddr) - 1
        while row >= 0 and vaddr >= ends[row]:
            if vaddr >= reach[row]:
                return -1
            row -= 1
        return row

    @cached_property
    def _bounds(self) -> tuple[list[int], list[int], list[int]]:
        """Where each row starts and ends, and the largest end of any row up to it: there a search
        backwards may stop. Lists: single look-ups in them are ten times as fast as in arrays."""
        reach = np.maximum.accumulate(self.ends) if len(self.rows) else self.ends
        return self.rows["vaddr"].tolist(), self.ends.tolist(), reach.tolist()


def function_table(image: ElfFile, frames: NDArray[np.void]) -> Functions:
    """All functions of an image with these `frames`, frames.FRAME_DTYPE[n].

    Raises BadInput where its tables are damaged.
    """
    symbols, tables, strings = _code_symbols(image)
    kind = symbols["info"] & 15
    is_function = (kind == _STT_FUNC) | (kind == _STT_GNU_IFUNC)
    is_function &= ~_repeated(image, symbols, tables, is_function)
    rows, aliases = _one_row_an_address(symbols[is_function], tables[is_function], strings)
    others = symbols[~is_function & (kind == _STT_NOTYPE)]
    rows, aliases = _add_frames(
        image, frames, rows, aliases, others, tables[~is_function & (kind == _STT_NOTYPE)]
    )
    _fill_sizes(image, rows, others["value"])
    labels = np.setdiff1d(others["value"], rows["vaddr"])
    return Functions(rows, lambda: _names_of(rows, strings), image.name, image.low, aliases, labels)


def symbol_names(strings: bytes, offsets: NDArray[np.integer]) -> list[str]:
    """The names at some offsets of a string table, without their symbol versions.

    "memcpy@@GLIBC_2.14" -> "memcpy". A name that the table's end cuts off ends there.
    """
    zeros = np.flatnonzero(np.frombuffer(strings, np.uint8) == 0)
    bounds = np.append(zeros, len(strings))
    ends = bounds[np.searchsorted(zeros, offsets)].tolist()
    places = zip(offsets.tolist(), ends, strict=True)
    if strings.isascii():
        text = strings.decode("ascii")
        names = [text[start:end] for start, end in places]
    else:
        names = [strings[start:end].decode("utf-8", "surrogateescape") for start, end in places]
    return [name.partition("@")[0] for name in names] if b"@" in strings else names


def _names_of(rows: NDArray[np.void], strings: list[bytes]) -> list[str]:
    """The symbol of each row, "" where it has none."""
    names = [""] * len(rows)
    for table in set(rows["table"].tolist()):
        if table != NO_TABLE:
            own = np.flatnonzero(rows["table"] == table)
            found = symbol_names(strings[table], rows["name"][own])
            for row, name in zip(own.tolist(), found, strict=True):
                names[row] = name
    return names


def _code_symbols(image: ElfFile) -> tuple[NDArray[np.void], NDArray[np.uint8], list[bytes]]:
    """Defined symbols inside executable segments, with the number of their string table."""
    kept = [np.zeros(0, SYMBOL_DTYPE)]
    tables = [np.zeros(0, np.uint8)]
    strings = []
    for number, array in enumerate(image.symbol_arrays[:NO_TABLE]):
        symbols = array.symbols
        keep = _in_code(image, symbols["value"])
        keep &= (symbols["shndx"] != _SHN_UNDEF) & (symbols["shndx"] < _SHN_LORESERVE)
        keep &= symbols["name"] < len(array.strings)
        kept.append(symbols[keep])
        tables.append(np.full(int(keep.sum()), number, np.uint8))
        strings.append(array.strings)
    return np.concatenate(kept), np.concatenate(tables), strings


def _repeated(
    image: ElfFile,
    symbols: NDArray[np.void],
    tables: NDArray[np.uint8],
    is_function: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Which symbols of .dynsym the file's own .symtab has as well, bool[n].

    All of them, where .symtab has as many at that address: strip removes it as a whole. Looking
    at their names would take most of the time of an attach.
    """
    dynamic = tables >= len(image.static_symbols) + len(image.debug_symbols)
    repeated = np.zeros(len(symbols), bool)
    if not image.static_symbols or not dynamic.any():
        return repeated
    own = np.sort(symbols["value"][is_function & (tables < len(image.static_symbols))])
    chosen = is_function & dynamic
    values, back, counts = np.unique(
        symbols["value"][chosen], return_inverse=True, return_counts=True
    )
    there = np.searchsorted(own, values, "right") - np.searchsorted(own, values, "left")
    repeated[chosen] = (there >= counts)[back]
    return repeated


def _in_code(image: ElfFile, vaddr: NDArray[np.uint64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(vaddr), bool)
    for segment in image.executable:
        inside |= (vaddr >= segment.vaddr) & (vaddr < segment.vaddr + segment.file_size)
    return inside


def _one_row_an_address(
    symbols: NDArray[np.void], tables: NDArray[np.uint8], strings: list[bytes]
) -> tuple[NDArray[np.void], dict[int, list[str]]]:
    order = np.argsort(symbols["value"], kind="stable")
    symbols, tables = symbols[order], tables[order]
    rows = np.zeros(len(symbols), FUNCTION_DTYPE)
    rows["vaddr"], rows["size"], rows["name"] = symbols["value"], symbols["size"], symbols["name"]
    rows["table"], rows["bind"] = tables, symbols["info"] >> 4
    rows["resolver"] = symbols["info"] & 15 == _STT_GNU_IFUNC
    rows["kind"] = np.where(rows["resolver"], FunctionKind.IFUNC, FunctionKind.FUNC)
    first = np.flatnonzero(np.diff(rows["vaddr"], prepend=np.uint64(2**64 - 1)) != 0)
    last = np.append(first[1:], len(rows)) if len(first) else first
    chosen = rows[first]
    chosen["size"] = _smallest(rows["size"], first)
    chosen["kind"] = np.maximum.reduceat(rows["kind"], first) if len(first) else []
    aliases: dict[int, list[str]] = {}
    counts = last - first
    many = np.flatnonzero(counts > 1)
    named = iter(_by_preference(rows, np.flatnonzero(np.repeat(counts > 1, counts)), strings))
    best = []
    for row, count in zip(many.tolist(), counts[many].tolist(), strict=True):
        group = sorted(islice(named, count))
        *_, preferred, symbol = group[0]
        best.append(symbol)
        names = dict.fromkeys(name for *_, name, _ in group if name != preferred)
        if names:
            aliases[row] = list(names)
    for field in ("name", "table", "bind", "resolver"):
        chosen[field][many] = rows[field][best]
    chosen["size_known"] = chosen["size"] > 0
    return chosen, aliases


def _smallest(sizes: NDArray[np.uint64], first: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Of the sizes of symbols of one address the smallest that is given, else 0: nothing beyond it
    is written. Groups begin at `first`."""
    if not len(first):
        return sizes
    least = np.minimum.reduceat(np.where(sizes > 0, sizes, np.uint64(2**64 - 1)), first)
    return np.where(least == np.uint64(2**64 - 1), np.uint64(0), least)


def _by_preference(
    rows: NDArray[np.void], wanted: NDArray[np.intp], strings: list[bytes]
) -> Iterable[tuple[bool, bool, int, str, int]]:
    """For each wanted row what to sort the symbols of its address by; ends in its name and number.

    Weak counts as global: libc's `write` is weak and `__write` is not, and people say write. A
    resolver's own name, if it has one, comes before those of what it resolves.
    """
    chosen = rows[wanted]
    resolvers = chosen["resolver"].tolist()
    local = (chosen["bind"] == _STB_LOCAL).tolist()
    names = [
        name + RESOLVER if resolver else name
        for name, resolver in zip(_names_of(chosen, strings), resolvers, strict=True)
    ]
    return zip(resolvers, local, map(len, names), names, wanted.tolist(), strict=True)


def _add_frames(
    image: ElfFile,
    frames: NDArray[np.void],
    rows: NDArray[np.void],
    aliases: dict[int, list[str]],
    others: NDArray[np.void],
    other_tables: NDArray[np.uint8],
) -> tuple[NDArray[np.void], dict[int, list[str]]]:
    """Adds the ranges of .eh_frame that start outside of every symbol's range."""
    frames = frames[_in_code(image, frames["start"])]
    if not len(frames):
        return rows, aliases
    _, first = np.unique(frames["start"], return_index=True)
    frames = frames[first]
    sized = np.flatnonzero(~rows["size_known"])
    at = np.searchsorted(frames["start"], rows["vaddr"][sized]).clip(max=len(frames) - 1)
    exact = frames["start"][at] == rows["vaddr"][sized]
    rows["size"][sized[exact]] = frames["size"][at[exact]]
    rows["size_known"][sized[exact]] = True
    frames = frames[~_covered(rows, frames["start"]) & ~_in_plt(image, frames["start"])]
    added = np.zeros(len(frames), FUNCTION_DTYPE)
    added["vaddr"], added["size"], added["table"] = frames["start"], frames["size"], NO_TABLE
    added["kind"], added["size_known"] = FunctionKind.FRAME, True
    _name_by_labels(added, others, other_tables)
    order = np.argsort(np.concatenate([rows["vaddr"], added["vaddr"]]), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    moved = {int(place[row]): names for row, names in aliases.items()}
    return np.concatenate([rows, added])[order], moved


def _name_by_labels(
    added: NDArray[np.void], others: NDArray[np.void], tables: NDArray[np.uint8]
) -> None:
    """Gives a frame that starts at a symbol without a type (an assembly label) its name."""
    if not len(others):
        return
    order = np.argsort(others["value"], kind="stable")
    values = others["value"][order]
    at = np.searchsorted(values, added["vaddr"]).clip(max=len(values) - 1)
    exact = values[at] == added["vaddr"]
    added["name"][exact] = others["name"][order][at[exact]]
    added["table"][exact] = tables[order][at[exact]]
    added["bind"][exact] = others["info"][order][at[exact]] >> 4


def _covered(rows: NDArray[np.void], vaddr: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which addresses lie at or inside a row."""
    if not len(rows):
        return np.zeros(len(vaddr), bool)
    reach = np.maximum.accumulate(rows["vaddr"] + np.maximum(rows["size"], 1))
    before = np.searchsorted(rows["vaddr"], vaddr, "right") - 1
    result: NDArray[np.bool_] = (before >= 0) & (vaddr < reach[before])
    return result


def _in_plt(image: ElfFile, vaddr: NDArray[np.uint64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(vaddr), bool)
    for section in image.sections:
        if section.name.startswith((".plt", ".iplt")):
            inside |= (vaddr >= section.vaddr) & (vaddr < section.vaddr + section.size)
    return inside


def _fill_sizes(image: ElfFile, rows: NDArray[np.void], labels: NDArray[np.uint64]) -> None:
    """Ends rows without a size at the next symbol, or where their section or segment ends."""
    unknown = np.flatnonzero(~rows["size_known"])
    if not len(unknown):
        return
    bounds = np.unique(np.concatenate([rows["vaddr"], labels, _code_ends(image)]))
    start = rows["vaddr"][unknown]
    after = np.searchsorted(bounds, start, "right").clip(max=len(bounds) - 1)
    rows["size"][unknown] = np.where(bounds[after] > start, bounds[after] - start, 0)


def _code_ends(image: ElfFile) -> NDArray[np.uint64]:
    ends: Iterable[int] = (segment.vaddr + segment.file_size for segment in image.executable)
    sections = (s.vaddr + s.size for s in image.sections if s.flags & 4 and s.vaddr)
    return np.array([*ends, *sections], np.uint64)
