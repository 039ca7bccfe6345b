"""Every accepted site of whole libraries and programs, compared with objdump's listing.

objdump decodes in line and by symbols, so it may take data in text for code; such a false branch
would only make this test stricter than it has to be.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.support.compiled import instructions
from tests.support.machine import need_tool

from fentry.sites.find import analyse
from fentry.sites.site import ModuleSites, SiteKind
from fentry.symbols.elf import ElfImage

FILES = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libsqlite3.so.0", "bash", "python3")
BRANCH = re.compile(
    r"^(?:(?:bnd|notrack|lock|rep\w*|addr32|data16|cs|ds|rex\S*|xacquire|xrelease)[, ]\s*)*"
    r"(j\w+|call\w*|loop\w*|xbegin)(?:,p[nt])? +(?:0x)?([0-9a-f]+)\b(?! *\()"
)


def path_of(name: str) -> Path:
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/bin", "/lib64", "/usr/lib64"):
        path = Path(folder, name)
        if path.exists():
            return path.resolve()
    return Path(need_tool(name)).resolve()


@cache
def listing(path: Path) -> dict[int, tuple[bytes, str]]:
    return instructions(path)


@cache
def sites_of(path: Path) -> ModuleSites:
    return analyse(ElfImage.open(path))


def branch_targets(path: Path) -> dict[int, int]:
    """Where every direct branch goes -> one branch that goes there."""
    found = {}
    for address, (_, text) in listing(path).items():
        if match := BRANCH.match(text):
            found[int(match[2], 16)] = address
    return found


@pytest.mark.parametrize("name", FILES)
def test_no_branch_goes_into_an_accepted_window(name: str) -> None:
    path = path_of(name)
    targets = branch_targets(path)
    sites = sites_of(path)
    accepted = sites.sites[sites.traceable]
    assert len(targets) > 1000 and len(accepted) > 100

    bad = [
        (hex(patch), hex(targets[patch + inside]))
        for patch, window in zip(
            accepted["patch"].tolist(), accepted["window"].tolist(), strict=True
        )
        for inside in range(1, window)
        if patch + inside in targets
    ]
    assert bad == []


@pytest.mark.parametrize("name", FILES)
def test_accepted_windows_end_where_instructions_end(name: str) -> None:
    path = path_of(name)
    code = listing(path)
    found = sites_of(path)
    bad = []
    for row in found.sites[found.traceable]:
        patch, window = int(row["patch"]), int(row["window"])
        position, raw = patch, b""
        while position < patch + window and position in code:
            raw += code[position][0]
            position = patch + len(raw)
        original = bytes(row["original"])
        if position != patch + window or raw[:16] != original[: len(raw)]:
            bad.append(hex(patch))
    assert bad == []


@pytest.mark.parametrize("name", FILES)
def test_accepted_windows_hold_nothing_that_depends_on_its_place(name: str) -> None:
    path = path_of(name)
    code = listing(path)
    found = sites_of(path)
    bad = []
    for row in found.sites[found.sites["kind"] == SiteKind.PROLOGUE]:
        for position in range(int(row["patch"]), int(row["patch"]) + int(row["window"])):
            text = code.get(position, (b"", ""))[1]
            if re.search(r"%rip|^j|^call|^ret|^syscall|^int|^loop|^xbegin|^hlt|^endbr", text):
                bad.append((hex(position), text))
    assert bad == []


@pytest.mark.parametrize("name", FILES)
def test_five_bytes_never_cross_a_page_or_the_end_of_a_function(name: str) -> None:
    found = sites_of(path_of(name))
    accepted = found.sites[found.traceable]

    end = accepted["entry"] + accepted["size"]
    assert not np.any(accepted["patch"] + accepted["window"] > end)
    replaced = np.where(accepted["hole"] != 0, 2, 5).astype(np.uint64)
    assert not np.any(accepted["patch"] % 4096 + replaced > 4096)
    assert not np.any(accepted["patch"][1:] < (accepted["patch"] + replaced)[:-1])


def test_carriers_are_whole_instructions_that_nothing_enters() -> None:
    path = path_of("python3")
    code, targets = listing(path), branch_targets(path)
    found = sites_of(path)
    carried = found.sites[found.sites["carrier"] != 0]
    assert len(carried) > 20
    windows = [
        (int(row["patch"]), max(int(row["window"]), 2 if row["hole"] else 5))
        for row in found.sites[found.traceable]
    ]
    taken = {start + i for start, size in windows for i in range(size)}
    for row in carried:
        start, end = int(row["hole"]) - 5, int(row["hole"]) - 5 + int(row["carrier"])
        span = range(start, end)
        assert len(span) >= 10
        assert taken.isdisjoint(span)
        taken.update(span)
        assert targets.keys().isdisjoint(range(start + 1, end))
        raw = b"".join(code[place][0] for place in span if place in code)
        assert raw == bytes(row["filler"])[: len(span)]
        assert start in code and end in code


@pytest.mark.parametrize("name", FILES)
def test_a_refusal_for_a_branch_names_one_that_objdump_has(name: str) -> None:
    path = path_of(name)
    code = listing(path)
    found = sites_of(path)
    refused = found.sites[found.sites["reason"] == 3]
    named = [code.get(found.blockers[int(row["entry"])], (b"", ""))[1] for row in refused]

    real = [text for text in named if BRANCH.match(text) or text.startswith("lea")]
    # in code that cannot be decoded with trust, what only looks like a branch counts as one
    assert len(named) - len(real) <= max(1, len(named) // 10)


def test_objdump_finds_the_branches_of_a_known_file(tmp_path: Path) -> None:
    source = tmp_path / "known.s"
    source.write_text("f: jmp f+1\n je f+2\n bnd jmp f+3\n loop f+4\n call f+5\n jrcxz f+6\n ret\n")
    subprocess.run([need_tool("as"), "-o", str(tmp_path / "known.o"), str(source)], check=True)

    assert set(branch_targets(tmp_path / "known.o")) == {1, 2, 3, 4, 5, 6}
