"""What the dynamic linker of a process has loaded: whether that has changed.

Reads the linker's own list from the target's memory: DT_DEBUG of the program leads to struct
r_debug, that to a chain of struct link_map (System V gABI, "Dynamic Linking"; glibc's link.h, musl
has the same). Costs the target nothing. Not here: what the modules are (module.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from fentry.symbols.elf_file import PT_DYNAMIC, ElfFile
from fentry.symbols.module import Module, Read

_DT_DEBUG = 21
_PT_INTERP = 3
_R_DEBUG = struct.Struct("<i4xQQi4xQ")  # r_version, r_map, r_brk, r_state, r_ldbase
_LINK_MAP = struct.Struct("<QQQQQ")  # l_addr, l_name, l_ld, l_next, l_prev
_RT_CONSISTENT = 0
_MOST_NODES = 4096

_NAME_BYTES = 256
Chain = tuple[tuple[int, int, int, bytes], ...]


class LinkMap:
    """Looks at the list of one process; `read(address, count)` gives what is mapped of it."""

    def __init__(self, modules: Sequence[Module], read: Read) -> None:
        self._read = read
        self._pointer = _debug_pointer(modules, read)
        self._pieces: list[tuple[int, bytes]] = []
        self._seen = self._chain()

    def has_changed(self) -> bool:
        """Whether something was loaded or unloaded since this was made; False while the linker is
        at it: then nothing else can take the place of what is going."""
        found = self._chain()
        return found is not None and found != self._seen

    def pieces(self) -> list[tuple[int, bytes]] | None:
        """Of what memory, (address, bytes) each, has_changed() says False as long as all of that
        is the same; None if it does not say so now."""
        return self._pieces if not self.has_changed() and all(p for _, p in self._pieces) else None

    def _chain(self) -> Chain | None:
        """(node, l_addr, l_ld, name) of all nodes; None where the list is not to be understood
        now. What is loaded in the place of another may have all but the name in common with it."""
        self._pieces = []
        raw = self._look(self._pointer, 8) if self._pointer else b""
        head = self._look(int.from_bytes(raw, "little"), _R_DEBUG.size) if any(raw) else b""
        if len(head) < _R_DEBUG.size:
            return None
        _, node, _, state, _ = _R_DEBUG.unpack(head)
        if state != _RT_CONSISTENT:
            return None
        found: list[tuple[int, int, int, bytes]] = []
        while node and len(found) < _MOST_NODES:
            raw = self._look(node, _LINK_MAP.size)
            if len(raw) < _LINK_MAP.size:
                return None
            address, name, dynamic, following, _ = _LINK_MAP.unpack(raw)
            text = self._text(name) if name else b""
            found.append((node, address, dynamic, text))
            node = following
        return tuple(found)

    def _text(self, address: int) -> bytes:
        raw = self._read(address, _NAME_BYTES)
        text = raw.partition(b"\0")[0]
        self._pieces.append((address, raw[: len(text) + 1]))
        return text

    def _look(self, address: int, count: int) -> bytes:
        raw = self._read(address, count)
        self._pieces.append((address, raw if len(raw) == count else b""))
        return raw


def _debug_pointer(modules: Sequence[Module], read: Read) -> int:
    """The address of the program's DT_DEBUG value; 0 if it has none (a static program)."""
    for module in modules:
        if any(segment.type == _PT_INTERP for segment in module.image.segments):
            place = _entry(module.image, _DT_DEBUG, module.bias, read)
            if place and not module.name.startswith("ld-"):
                return place
    return 0


def _entry(image: ElfFile, tag: int, bias: int, read: Read) -> int:
    for segment in image.segments:
        if segment.type == PT_DYNAMIC:
            raw = read(segment.vaddr + bias, segment.memory_size)
            for number, (found, _) in enumerate(struct.iter_unpack("<QQ", raw[: len(raw) & ~15])):
                if found == tag:
                    return segment.vaddr + bias + 16 * number + 8
    return 0
