"""The layers of docs and DESIGN as a test: imports point down, and few may touch a target."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "fentry"

# Lowest first; names on one line are siblings.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("x86",),
    ("process",),
    ("region",),
    ("symbols", "ring", "events"),
    ("sites", "trampolines", "formats"),
    ("dispatch",),
    ("tracers", "probes", "livepatch", "python"),
    ("instance",),
    ("session",),
    ("watching",),
    ("recording", "snapshot", "tracing"),
    ("live",),
    ("tracefs",),
    ("cli",),
)
# What a session consists of (docs/design/session.md), lowest first.
SESSION = (
    "options", "place", "known", "attaching", "memory", "transaction", "adopting", "changes",
    "leaving", "life", "session", "__init__",
)  # fmt: skip
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TOP = len(LAYERS)  # fentry/__init__.py and fentry/__main__.py may import everything
ROOT_FILES = {"__init__", "__main__"}
# A word that hides what a file is; in Python, C and shell alike.
VAGUE = re.compile(r"manager|helper|provider|(^|_)utils?($|_)")
# Whoever writes to a target, and what; everything else goes through these.
WRITERS = {
    "process": "the stub behind the vDSO, registers and saved rips",
    "region": "what it has mapped itself",
    "sites/patcher.py": "text, and nobody else writes text",
    "dispatch/apply.py": "trampolines and pads, in arenas of the region",
    "dispatch/writes.py": "the calls in pads",
    "dispatch/natives.py": "C functions, in an arena, and their data, in segments of the region",
    "dispatch/counters.py": "where counters are, in the pages of the region",
    "instance.py": "the room of its ring, in the control page",
}
# Files outside process/ that may use ctypes, because they touch no other process.
OWN_PROCESS_ONLY = {
    "ring/clock.py": "runs rdtsc in the controller",
    "symbols/cxx.py": "calls the C++ library in a child",
}


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def layer_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imported_layers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, layer) of each import of our own package, however it is written."""
    for line, module in imported_modules(tree):
        package, _, rest = module.partition(".")
        if package == "fentry":
            yield line, rest.split(".")[0]


def imported_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            if node.module == "fentry":
                yield from ((node.lineno, f"fentry.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module or ""


def faults_of_imports(layer: str, tree: ast.AST) -> list[str]:
    if layer in ROOT_FILES:
        return []
    rank = RANK[layer]
    return [
        f"line {line}: {layer} imports {other or 'fentry itself'}"
        for line, other in imported_layers(tree)
        if other != "__version__" and other != layer and RANK.get(other, TOP) >= rank
    ]


def docstrings(tree: ast.AST) -> set[int]:
    """Ids of the constants that are documentation."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and node.body and isinstance(node.body[0], ast.Expr)
    }


def touches_of_a_process(tree: ast.AST) -> list[str]:
    """Where another process could be touched: by ctypes, or by the file of its memory."""
    found = [
        f"line {line}: imports ctypes"
        for line, module in imported_modules(tree)
        if module.split(".")[0] == "ctypes"
    ]
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "1" for p in node.values]
            text = "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and id(node) not in documentation:
            text = str(node.value)
        if isinstance(node, ast.expr) and re.search(r"/proc/\S*/mem\b", text):
            found.append(f"line {node.lineno}: names the memory of a process")
    return found


def writes_to_memory(tree: ast.AST) -> list[int]:
    """Lines with memory.write(...), self.memory.write_u64(...) and the like."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            receiver = ast.unparse(node.func.value).rpartition(".")[2].lstrip("_")
            if receiver == "memory" and node.func.attr.startswith("write"):
                lines.append(node.lineno)
    return lines


def names_called(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.lineno, node.func.attr
            elif isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    layer = layer_of(path)
    assert layer in RANK or layer in ROOT_FILES, f"{layer} is in no layer of LAYERS"
    assert faults_of_imports(layer, tree_of(path)) == []


@pytest.mark.parametrize("path", sorted((SOURCE / "session").glob("*.py")), ids=name_of)
def test_parts_of_a_session_know_only_those_below(path: Path) -> None:
    below = SESSION[: SESSION.index(path.stem)]
    modules = {module for _, module in imported_modules(tree_of(path))}
    parts = {one for one in modules if one.startswith("fentry.session")}
    assert parts <= {f"fentry.session.{name}" for name in below}


def test_only_process_touches_another_process() -> None:
    faults = {
        name_of(path): found
        for path in sources()
        if layer_of(path) != "process"
        and name_of(path) not in OWN_PROCESS_ONLY
        and (found := touches_of_a_process(tree_of(path)))
    }
    assert faults == {}


def test_only_the_files_named_here_write_to_a_target() -> None:
    faults = [
        f"{name_of(path)}:{line}"
        for path in sources()
        if not {layer_of(path), name_of(path)} & (WRITERS.keys() | OWN_PROCESS_ONLY.keys())
        for line in writes_to_memory(tree_of(path))
    ]
    assert faults == []


def test_only_the_edges_print() -> None:
    faults = [
        f"{name_of(path)}:{line}"
        for path in sources()
        if layer_of(path) not in {"cli", "formats"}
        for line, name in names_called(tree_of(path))
        if name == "print"
    ]
    assert faults == []


def test_no_file_name_hides_what_the_file_is() -> None:
    checkout = SOURCE.parent.parent
    names = [
        path
        for directory in ("src", "tests", "bench", "tools")
        for path in (checkout / directory).rglob("*")
        if path.is_file() and path.suffix in {".py", ".c", ".h", ".cpp", ".S", ".sh", ""}
    ]
    assert [str(path) for path in names if VAGUE.search(path.stem)] == []


# The rules themselves, on sources with known faults.


def test_an_import_of_a_higher_layer_is_a_fault() -> None:
    tree = ast.parse("from fentry.dispatch.plan import plan")
    assert faults_of_imports("sites", tree) == ["line 1: sites imports dispatch"]


def test_an_import_of_a_sibling_is_a_fault() -> None:
    tree = ast.parse("import fentry.ring.layout")
    assert faults_of_imports("symbols", tree) == ["line 1: symbols imports ring"]


def test_an_import_of_the_whole_package_is_a_fault() -> None:
    tree = ast.parse("import fentry")
    assert faults_of_imports("cli", tree) == ["line 1: cli imports fentry itself"]


def test_an_import_inside_a_function_counts() -> None:
    tree = ast.parse("def f():\n    from fentry import session")
    assert faults_of_imports("x86", tree) == ["line 2: x86 imports session"]


def test_imports_of_lower_layers_and_of_the_own_layer_are_fine() -> None:
    tree = ast.parse("from fentry.errors import BadInput\nfrom fentry.symbols import elf\n")
    assert faults_of_imports("formats", tree) == []
    assert faults_of_imports("symbols", tree) == []


def test_ctypes_and_process_memory_are_seen_and_documentation_is_not() -> None:
    tree = ast.parse(
        '"""Never opens /proc/1/mem."""\n'
        "import ctypes\n"
        'open(f"/proc/{pid}/mem")\n'
        'open("/proc/self/mem")\n'
        'open("/proc/meminfo")\n'
    )
    assert sorted(touches_of_a_process(tree)) == [
        "line 2: imports ctypes",
        "line 3: names the memory of a process",
        "line 4: names the memory of a process",
    ]


def test_writes_to_a_target_are_seen_however_the_memory_is_reached() -> None:
    tree = ast.parse("memory.write(1, b'')\nself._memory.write_u64(1, 2)\nfile.write(b'')\n")
    assert writes_to_memory(tree) == [1, 2]


def test_no_file_imports_what_imports_it() -> None:
    graph: dict[str, set[str]] = {}
    for path in sources():
        own = f"fentry.{name_of(path).removesuffix('.py').replace('/', '.')}"
        graph[own] = {module for _, module in imported_modules(tree_of(path))}
    begun, done = list[str](), set[str]()

    def circle_from(name: str) -> list[str]:
        if name in begun:
            return begun[begun.index(name) :]
        if name in done or name not in graph:
            return []
        begun.append(name)
        for other in sorted(graph[name]):
            if found := circle_from(other):
                return found
        begun.pop()
        done.add(name)
        return []

    assert [circle for name in graph if (circle := circle_from(name))] == []
