"""Tables of functions kept on disk: the same as those of the file, and never needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.support.compiled import assemble

from fentry.symbols.elf import ElfImage
from fentry.symbols.keep import kept, store
from fentry.symbols.module import open_image

SOURCE = """
.text
.globl work, also_work
.type work,@function
.type also_work,@function
work: also_work: nop; ret
.size work,.-work
.size also_work,.-also_work
.type caf\u00e9,@function
caf\u00e9: nop; nop; ret
.size caf\u00e9,.-caf\u00e9
.type chosen,@gnu_indirect_function
.type choose,@function
.globl chosen
chosen: choose: lea work(%rip),%rax; ret
.size choose,.-choose
.type inner,@gnu_indirect_function
inner: lea work(%rip),%rax; ret
.size inner,.-inner
.p2align 4
.cfi_startproc
nop; nop; nop; ret
.cfi_endproc
label: nop; ret
.data
.quad chosen, inner
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FENTRY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(folder: Path) -> Path:
    return assemble(folder, SOURCE)


def facts(image: ElfImage) -> tuple[object, ...]:
    functions = image.functions
    return (
        functions.rows.tobytes(), functions.names, functions.aliases, functions.labels.tolist(),
        functions.ifuncs, list(image.symbol_slots), list(image.irelative),
    )  # fmt: skip


def test_the_second_time_is_read_from_the_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(tmp_path)
    own = facts(ElfImage.open(path))
    assert not folder.exists()
    first = facts(open_image(str(path)))
    (entry,) = folder.iterdir()
    monkeypatch.setattr("fentry.symbols.elf.function_table", None)

    assert own == first == facts(open_image(str(path)))
    names = first[1]
    assert isinstance(names, list)
    assert {"work", "caf\u00e9", "choose"} <= set(names)
    assert all(first[3:])  # labels, indirect functions, slots of both kinds
    assert entry.name.endswith("-v1.symbols")


def test_names_after_the_address_are_those_of_the_file_that_is_read(
    folder: Path, tmp_path: Path
) -> None:
    path = build(tmp_path)
    subprocess.run(["strip", path], check=True)
    open_image(str(path))
    other = path.rename(tmp_path / "other.so")

    names = open_image(str(other)).functions.names
    assert names
    assert not [name for name in names if path.name in name]


def test_a_file_that_was_stripped_has_tables_of_its_own(folder: Path, tmp_path: Path) -> None:
    path = build(tmp_path)
    whole = open_image(str(path)).functions.names
    subprocess.run(["strip", path], check=True)

    assert "caf\u00e9" in whole
    assert "caf\u00e9" not in open_image(str(path)).functions.names
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_ignored_and_written_anew(
    folder: Path, tmp_path: Path, damage: str
) -> None:
    path = build(tmp_path)
    first = facts(open_image(str(path)))
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(
        {"flip": whole[:-1] + bytes([whole[-1] ^ 1]), "cut": whole[:-8], "empty": b""}[damage]
    )

    assert facts(open_image(str(path))) == first
    assert entry.read_bytes() == whole


def test_what_is_kept_under_one_name_is_none_of_anothers(folder: Path) -> None:
    store("one", b"facts")
    (folder / "one").rename(folder / "other")

    assert kept("other") is None
    store("one", b"facts")
    assert bytes(kept("one") or b"") == b"facts"


def test_a_link_in_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    store("one", b"facts")
    (folder / "one").rename(tmp_path / "elsewhere")
    (folder / "one").symlink_to(tmp_path / "elsewhere")

    assert kept("one") is None
