"""Patterns and addresses over modules made by gcc."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.compiled import SHARED, addresses, compile_cpp

from fentry.symbols.elf import ElfImage
from fentry.symbols.module import Module, module_of_file, short_name
from fentry.symbols.table import SymbolTable

SOURCE = """
extern "C" { int memory_copy(int x) { return x + 1; }
             int memory_move(int x) { return x + 2; }
             int Memory(int x) { return x * 2; } }
namespace ns { int act(int x) { return x; } template <class T> T twice(T x) { return x + x; } }
template int ns::twice<int>(int);
"""
BIAS = 0x7F00_0000_0000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("table")
    return compile_cpp(directory, SOURCE, "-O1", "-fPIC", *SHARED, name="libthing-1.2.so.3")


@pytest.fixture(scope="module")
def table(path: Path) -> SymbolTable:
    at_zero = module_of_file(str(path), ElfImage.open(path))
    moved = Module("/opt/other.so", "other.so", "other", BIAS, BIAS, BIAS, BIAS + 1, at_zero.image)
    return SymbolTable([moved, at_zero])


def names_of(path: Path, *names: str) -> list[int]:
    known = addresses(path)
    return sorted(known[name] for name in names)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("memory_copy", ["memory_copy"]),
        ("memory_*", ["memory_copy", "memory_move"]),
        ("[mM]emory*", ["memory_copy", "memory_move", "Memory"]),
        ("Memor?", ["Memory"]),
        ("memory", []),
        ("ns::act", ["_ZN2ns3actEi"]),
        ("ns::act(int)", ["_ZN2ns3actEi"]),
        ("ns::*", ["_ZN2ns3actEi", "_ZN2ns5twiceIiEET_S1_"]),
        ("_ZN2ns*", ["_ZN2ns3actEi", "_ZN2ns5twiceIiEET_S1_"]),
    ],
)
def test_a_pattern_finds_raw_and_plain_names_by_case(
    table: SymbolTable, path: Path, pattern: str, names: list[str]
) -> None:
    expected = names_of(path, *names)

    for module in ("libthing", "libthing-1.2.so.3", "libth*"):
        found = table.match(f"{module}!{pattern}")
        assert found.dtype == np.uint64
        assert found.tolist() == expected
    assert table.match(pattern).tolist() == expected + [BIAS + e for e in expected]
    assert table.match(f"other!{pattern}").tolist() == [BIAS + e for e in expected]
    assert table.match(f"Libthing!{pattern}").tolist() == []


def test_an_address_is_a_name_an_offset_and_a_module(table: SymbolTable, path: Path) -> None:
    start = addresses(path)["memory_copy"]

    assert table.resolve(start)[:2] == ("memory_copy", 0)
    assert table.resolve(BIAS + start + 2)[:2] == ("memory_copy", 2)
    module = table.resolve(BIAS + start)[2]
    assert module is not None and module.short == "other"
    assert table.resolve(addresses(path)["_ZN2ns3actEi"])[0] == "ns::act(int)"


def test_an_address_in_no_function_stays_a_number(table: SymbolTable) -> None:
    assert table.resolve(0x12) == ("0x12", 0, None)
    assert table.resolve(BIAS * 2) == (hex(BIAS * 2), 0, None)


def test_similar_names_are_offered(table: SymbolTable) -> None:
    assert table.near("memory_coppy")[0] == "memory_copy"
    assert table.near("qqqqqqqqqqq") == []


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("libc.so.6", "libc"),
        ("libc-2.36.so", "libc"),
        ("libstdc++.so.6.0.30", "libstdc++"),
        ("ld-linux-x86-64.so.2", "ld-linux-x86-64"),
        ("python3.11", "python3.11"),
        ("libpython3.11.so.1.0", "libpython3.11"),
        ("redis-server", "redis-server"),
    ],
)
def test_the_short_name_has_no_version(name: str, short: str) -> None:
    assert short_name(name) == short
