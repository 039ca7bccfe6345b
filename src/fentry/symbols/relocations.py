"""Addresses of code that data, headers and relocations name.

In a position independent image every absolute pointer needs a relocation, so this list is
complete for it; in a fixed one any word of its data may be a pointer. Layouts: System V gABI,
"Relocation" and "SHT_RELR"; x86-64 psABI 4.4.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fentry.symbols.elf_file import ElfFile
from fentry.symbols.functions import symbol_names

RELA_DTYPE = np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])

_R_64, _R_RELATIVE, _R_IRELATIVE = 1, 8, 37
_R_GLOB_DAT, _R_JUMP_SLOT = 6, 7
_SHT_RELA, _SHT_RELR, _SHF_ALLOC = 4, 19, 2
_DT_RELA, _DT_RELASZ, _DT_JMPREL, _DT_PLTRELSZ, _DT_RELR, _DT_RELRSZ = 7, 8, 23, 2, 36, 35
_DT_INIT, _DT_FINI = 12, 13
_ET_EXEC = 2
_PF_X = 1
# RSEQ_SIG of x86: tools/testing/selftests/rseq/rseq-x86.h, glibc's sys/rseq.h.
RSEQ_SIGNATURE = (0x53053053).to_bytes(4, "little")


def code_pointers(image: ElfFile) -> NDArray[np.uint64]:
    """Every address of code that something outside the code names, uint64[n] sorted, once each.

    From the addends of R_X86_64_RELATIVE, _64 and _IRELATIVE, RELR, the entry point, DT_INIT
    and DT_FINI; in an image at fixed addresses also each aligned word of its data.
    """
    rela, relr = _tables(image)
    found = [np.array([image.entry, *map(image.dynamic_vaddr, (_DT_INIT, _DT_FINI))], np.uint64)]
    found += [_addends(image, table) for table in rela]
    found += [_words_at(image, _relr_places(table)) for table in relr]
    if image.type == _ET_EXEC:
        found += _data_words(image)
    every = np.concatenate(found)
    inside = np.zeros(len(every), bool)
    for segment in image.executable:
        inside |= (every >= segment.vaddr) & (every < segment.vaddr + segment.memory_size)
    return np.unique(every[inside])


def restartable_sequences(image: ElfFile, pointers: NDArray[np.uint64]) -> list[range]:
    """The addresses of each restartable sequence of the program: rseq(2).

    `pointers` are those of code_pointers(). Known by their descriptors: struct rseq_cs {u32
    version, flags; u64 start_ip, post_commit_offset, abort_ip} (include/uapi/linux/rseq.h), whose
    abort handler has the signature in front of it.
    """
    aborts = {
        pointer
        for pointer in pointers.tolist()
        if image.read(pointer - len(RSEQ_SIGNATURE), len(RSEQ_SIGNATURE)) == RSEQ_SIGNATURE
    }
    if not aborts:
        return []
    values = _pointers_by_place(image)
    found = []
    for place, value in values.items():
        start, raw = values.get(place - 16), image.read(place - 24, 24)
        if value in aborts and start is not None and len(raw) == 24 and not any(raw[:4]):
            found.append(range(start, start + int.from_bytes(raw[16:], "little") % 2**32))
    return found


def _pointers_by_place(image: ElfFile) -> dict[int, int]:
    """Every word of data that is or becomes an absolute address: vaddr -> value."""
    rela, relr = _tables(image)
    pairs: list[tuple[int, int]] = []
    for table in rela:
        rows = table[table["type"] == _R_RELATIVE]
        pairs += zip(rows["offset"].tolist(), rows["addend"].tolist(), strict=True)
    for entries in relr:
        for place in _relr_places(entries).tolist():
            pairs += [(place, int(word)) for word in _words_at(image, np.array([place], np.uint64))]
    for segment in image.loads if image.type == _ET_EXEC else []:
        skip = -segment.vaddr % 8
        data = image.tail(segment.vaddr)[skip:]
        words = np.ascontiguousarray(data[: len(data) & ~7]).view(np.uint64)
        pairs += [(segment.vaddr + skip + 8 * i, word) for i, word in enumerate(words.tolist())]
    return dict(pairs)


def irelative_slots(image: ElfFile) -> list[tuple[int, int]]:
    """(vaddr of the slot, vaddr of the resolver) of each R_X86_64_IRELATIVE."""
    found = []
    for table in _tables(image)[0]:
        rows = table[table["type"] == _R_IRELATIVE]
        found += list(zip(rows["offset"].tolist(), rows["addend"].tolist(), strict=True))
    return found


def symbol_slots(image: ElfFile) -> list[tuple[int, str]]:
    """(vaddr, symbol) of each word that gets the address of a symbol itself."""
    if not image.symbol_arrays:
        return []
    dynamic = image.symbol_arrays[-1]  # .dynsym is the last, and what they refer to
    found = []
    for table in _tables(image)[0]:
        kept = np.isin(table["type"], (_R_64, _R_GLOB_DAT, _R_JUMP_SLOT)) & (table["addend"] == 0)
        rows = table[kept & (table["symbol"] < len(dynamic.symbols))]
        names = symbol_names(dynamic.strings, dynamic.symbols["name"][rows["symbol"]])
        found += list(zip(rows["offset"].tolist(), names, strict=True))
    return found


def _tables(image: ElfFile) -> tuple[list[NDArray[np.void]], list[NDArray[np.uint64]]]:
    """The relocation tables that are applied at run time: from sections, else PT_DYNAMIC."""
    rela: list[NDArray[np.void]] = []
    relr: list[NDArray[np.uint64]] = []
    for section in image.sections:
        if section.type in (_SHT_RELA, _SHT_RELR) and section.flags & _SHF_ALLOC:
            width = RELA_DTYPE.itemsize if section.type == _SHT_RELA else 8
            raw = image.at(section.offset, section.size // width * width, f"section {section.name}")
            if section.type == _SHT_RELA:
                rela.append(np.frombuffer(raw, RELA_DTYPE))
            else:
                relr.append(np.frombuffer(raw, np.uint64))
    if image.sections:
        return rela, relr
    for table, size in ((_DT_RELA, _DT_RELASZ), (_DT_JMPREL, _DT_PLTRELSZ)):
        data = _dynamic_bytes(image, table, size, RELA_DTYPE.itemsize)
        rela.append(data.view(RELA_DTYPE))
    relr.append(_dynamic_bytes(image, _DT_RELR, _DT_RELRSZ, 8).view(np.uint64))
    return rela, relr


def _dynamic_bytes(image: ElfFile, table: int, size: int, width: int) -> NDArray[np.uint8]:
    start = image.dynamic_vaddr(table)
    data = image.tail(start)[: image.dynamic.get(size, 0)] if start else np.zeros(0, np.uint8)
    return np.ascontiguousarray(data[: len(data) // width * width])


def _addends(image: ElfFile, rela: NDArray[np.void]) -> NDArray[np.uint64]:
    kind = rela["type"]
    plain = rela["addend"][(kind == _R_RELATIVE) | (kind == _R_IRELATIVE)].astype(np.uint64)
    named = rela[kind == _R_64]
    if not len(named) or not image.symbol_arrays:
        return np.asarray(plain, np.uint64)
    symbols = image.symbol_arrays[-1].symbols  # .dynsym is the last, and what they refer to
    named = named[named["symbol"] < len(symbols)]
    target = symbols[named["symbol"]]
    values = target["value"] + named["addend"].astype(np.uint64)
    return np.concatenate([plain, values[target["shndx"] != 0]])


def _relr_places(entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The addresses that a RELR table relocates: an address, then bitmaps of the 63 words after."""
    places: list[int] = []
    place = 0
    for entry in entries.tolist():
        if entry & 1:
            places.extend(place + 8 * bit for bit in range(63) if entry >> (bit + 1) & 1)
            place += 63 * 8
        else:
            places.append(entry)
            place = entry + 8
    return np.array(places, np.uint64)


def _words_at(image: ElfFile, places: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 8-byte words at addresses; in memory they have been relocated, which is taken back."""
    found = [np.zeros(0, np.uint64)]
    for segment in image.loads:
        last = segment.vaddr + segment.file_size - 8
        here = places[(places >= segment.vaddr) & (places <= last)] if last > 0 else places[:0]
        if len(here):
            at = (here - np.uint64(segment.vaddr)).astype(np.int64)
            rows = image.tail(segment.vaddr)[at[:, None] + np.arange(8)]
            found.append(np.ascontiguousarray(rows).view(np.uint64).reshape(-1))
    return np.concatenate(found) - np.uint64(image.memory_bias or 0)


def _data_words(image: ElfFile) -> list[NDArray[np.uint64]]:
    words = []
    for segment in image.loads:
        if not segment.flags & _PF_X:
            data = image.tail(segment.vaddr)[-segment.vaddr % 8 :]
            words.append(np.ascontiguousarray(data[: len(data) & ~7]).view(np.uint64))
    return words
