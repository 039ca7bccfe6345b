"""Analyses kept on disk: believed only if whole, and never needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.compiled import assemble

from fentry.sites.cached import analyse_cached
from fentry.sites.find import analyse
from fentry.sites.site import ModuleSites, Reason
from fentry.symbols.elf import ElfImage
from fentry.symbols.keep import cache_folder
from fentry.symbols.module import Module, module_of_file

SOURCE = """
.text
.type f,@function
f: push %rbx; 1: dec %edi; inc %eax; nop; jne 1b; pop %rbx; ret
.size f,.-f
.type g,@function
g: push %rbp; mov %rsp,%rbp; nop; ret
.size g,.-g
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FENTRY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def module(tmp_path: Path) -> Module:
    path = assemble(tmp_path, SOURCE)
    return module_of_file(str(path), ElfImage.open(path))


def same(first: ModuleSites, second: ModuleSites) -> bool:
    return first.sites.tobytes() == second.sites.tobytes() and first.blockers == second.blockers


def test_the_second_time_is_read_from_the_folder(
    folder: Path, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = analyse_cached(module)
    (entry,) = folder.iterdir()
    monkeypatch.setattr("fentry.sites.find.analyse", None)

    assert same(analyse_cached(module), first)
    assert same(first, analyse(module.image))
    assert [Reason(row["reason"]) for row in first.sites] == [Reason.BRANCH, Reason.NONE]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert module.image.build_id in entry.name


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer"])
def test_a_damaged_entry_is_ignored_and_written_anew(
    folder: Path, module: Module, damage: str
) -> None:
    first = analyse_cached(module)
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    for place in (0, 31, 32, 60, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 1
        pieces = {"flip": broken, "cut": whole[:place], "empty": b"", "longer": whole + b"x"}
        entry.write_bytes(pieces[damage])

        assert same(analyse_cached(module), first)
        assert entry.read_bytes() == whole


def test_a_folder_that_cannot_be_made_is_no_error(
    tmp_path: Path, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FENTRY_CACHE", str(tmp_path / "file" / "cache"))

    assert same(analyse_cached(module), analyse(module.image))


def test_a_stripped_file_has_its_own_entry(folder: Path, module: Module, tmp_path: Path) -> None:
    whole = analyse_cached(module)
    os.system(f"strip -o {tmp_path / 'stripped.so'} {module.path}")
    image = ElfImage.open(tmp_path / "stripped.so")

    assert image.build_id == module.image.build_id
    assert len(analyse_cached(module_of_file("stripped.so", image)).sites) == 0
    assert len(whole.sites) == 2


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("FENTRY_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert str(cache_folder()) == "/home/me/.cache/fentry"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert str(cache_folder()) == "/xdg/fentry"
    monkeypatch.setenv("FENTRY_CACHE", "/own")
    assert str(cache_folder()) == "/own"
