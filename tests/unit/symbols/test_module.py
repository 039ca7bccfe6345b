"""Files as they lie in a process: ourselves, with files that come, go and are replaced."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.compiled import SHARED, addresses, assemble

from fentry.process.maps import read_maps
from fentry.symbols.module import Module, load_modules

SOURCE = """
.text
.globl {name}
.type {name},@function
{name}: mov ${value},%eax; ret
.size {name}, 6
"""


def read(address: int, count: int) -> bytes:
    with open("/proc/self/mem", "rb", buffering=0) as file:
        file.seek(address)
        try:
            return file.read(count)
        except OSError:
            return b""


def modules() -> dict[str, Module]:
    return {
        module.name: module for module in load_modules(os.getpid(), read_maps(os.getpid()), read)
    }


class Loaded:
    """A library of our own process, and what dlsym says of its only function."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.file = assemble(
            path.parent, SOURCE.format(name=name, value=7), *SHARED, name=path.name
        )
        self.vaddr = addresses(path)[name]
        self.handle = ctypes.CDLL(str(path))
        self.address = ctypes.cast(self.handle[name], ctypes.c_void_p).value or 0

    def close(self) -> None:
        ctypes.CDLL(None).dlclose(ctypes.c_void_p(self.handle._handle))


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Loaded]:
    library = Loaded(tmp_path / "lib one.so.1", "one")
    yield library
    library.close()


def test_a_module_says_where_its_functions_lie(loaded: Loaded) -> None:
    module = modules()["lib one.so.1"]

    assert module.bias + loaded.vaddr == loaded.address
    assert module.text_low <= loaded.address < module.text_high
    assert module.base == loaded.address - loaded.vaddr
    assert (module.path, module.short, module.is_vdso) == (str(loaded.path), "lib one", False)
    assert module.image.memory_bias is None


def test_libc_and_the_vdso_are_modules() -> None:
    found = modules()

    libc = found["libc.so.6"]
    row = libc.image.functions.names.index("getpid")
    runtime = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value
    assert int(libc.image.functions.rows["vaddr"][row]) + libc.bias == runtime
    assert found["[vdso]"].is_vdso


def test_a_file_that_is_deleted_is_still_read(loaded: Loaded) -> None:
    loaded.path.unlink()

    module = modules()["lib one.so.1"]

    assert [*module.image.functions.names] == ["one"]
    assert int(module.image.functions.rows["vaddr"][0]) + module.bias == loaded.address


def test_a_file_that_is_replaced_is_never_read_in_its_place(loaded: Loaded, tmp_path: Path) -> None:
    other = assemble(tmp_path, SOURCE.format(name="two", value=8), *SHARED, name="other.so")
    loaded.path.unlink()
    shutil.move(other, loaded.path)

    module = modules()["lib one.so.1"]

    assert module.image.functions.names == ["one"]


def test_a_deleted_file_that_cannot_be_opened_is_read_from_memory(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded.path.unlink()
    real = os.open

    def refuse(path: str, *rest: int) -> int:
        if "map_files" in str(path):
            raise PermissionError(1, "Operation not permitted", path)
        return real(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    module = modules()["lib one.so.1"]

    assert module.image.memory_bias == module.bias
    assert module.image.functions.names == ["one"]
    assert int(module.image.functions.rows["vaddr"][0]) + module.bias == loaded.address
    assert module.image.build_id


def test_a_file_that_is_only_mapped_as_data_is_no_module(loaded: Loaded, tmp_path: Path) -> None:
    copy = tmp_path / "data.so"
    shutil.copy(loaded.path, copy)
    with open(copy, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert "data.so" not in modules()


def test_a_module_linked_at_an_address_has_that_bias(tmp_path: Path) -> None:
    path = tmp_path / "high.so"
    flags = (*SHARED, "-Wl,-Ttext-segment=0x40000000")
    assemble(tmp_path, SOURCE.format(name="high", value=3), *flags, name=path.name)
    handle = ctypes.CDLL(str(path))
    runtime = ctypes.cast(handle.high, ctypes.c_void_p).value
    try:
        module = modules()["high.so"]
        assert module.bias + addresses(path)["high"] == runtime
    finally:
        ctypes.CDLL(None).dlclose(ctypes.c_void_p(handle._handle))


def test_segments_whose_file_offset_differs_from_the_address_are_found(tmp_path: Path) -> None:
    path = tmp_path / "odd.so"
    flags = (*SHARED, "-Wl,-z,noseparate-code", "-Wl,--section-start=.text=0x123450")
    assemble(tmp_path, SOURCE.format(name="odd", value=3), *flags, name=path.name)
    handle = ctypes.CDLL(str(path))
    runtime = ctypes.cast(handle.odd, ctypes.c_void_p).value
    try:
        module = modules()["odd.so"]
        assert module.bias + addresses(path)["odd"] == runtime
        assert module.image.read(addresses(path)["odd"], 6) == bytes.fromhex("b803000000c3")
    finally:
        ctypes.CDLL(None).dlclose(ctypes.c_void_p(handle._handle))


def test_code_made_at_run_time_is_not_that_of_a_second_module(tmp_path: Path) -> None:
    path = tmp_path / "odd.so"
    flags = (*SHARED, "-Wl,-z,noseparate-code", "-Wl,--section-start=.text=0x123450")
    assemble(tmp_path, SOURCE.format(name="odd", value=3), *flags, name=path.name)
    handle = ctypes.CDLL(str(path))
    runtime = ctypes.cast(handle.odd, ctypes.c_void_p).value
    last = [m for m in read_maps(os.getpid()) if m.path == str(path)][-1]
    assert last.offset == 0  # it may be taken for the first of a module
    start = last.start + 0x123000  # where its code would be then
    made = replace(
        last, start=start, end=start + 4096, perms="r-xp", device="00:00", inode=0, path=""
    )
    maps = [m for m in read_maps(os.getpid()) if m.end <= start or m.start >= made.end]
    try:
        found = load_modules(os.getpid(), sorted([*maps, made], key=lambda m: m.start), read)
        odd = [m for m in found if m.name == "odd.so"]
        assert [m.bias + addresses(path)["odd"] for m in odd] == [runtime]
    finally:
        ctypes.CDLL(None).dlclose(ctypes.c_void_p(handle._handle))
