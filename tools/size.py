"""Prints lines by layer and file: code, of that documentation and comments, and the median."""

from __future__ import annotations

import ast
import statistics
import tokenize
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCE = CHECKOUT / "src" / "fentry"
LONG = 500  # a longer file says in its docstring why it is one thing


def main() -> None:
    """Print the table."""
    files = sorted(path for path in SOURCE.rglob("*.py") if path.stat().st_size)
    lines = {path: len(path.read_text().splitlines()) for path in files}
    layers: dict[str, list[Path]] = {}
    for path in files:
        layers.setdefault(path.relative_to(SOURCE).parts[0].removesuffix(".py"), []).append(path)
    for layer, members in layers.items():
        print(f"{layer:14} {sum(lines[path] for path in members):6} lines, {len(members)} files")
        for path in members:
            note = f"  longer than {LONG}" if lines[path] > LONG else ""
            name = path.relative_to(SOURCE)
            print(f"    {name!s:36} {lines[path]:5}  {words_of(path):5} documentation{note}")
    bodies = [count for path, count in lines.items() if path.name != "__init__.py"]
    print(f"{'src':14} {sum(lines.values()):6} lines, median file {statistics.median(bodies):g}")
    for directory in ("tests", "bench"):
        count = sum(len(p.read_text().splitlines()) for p in (CHECKOUT / directory).rglob("*.py"))
        print(f"{directory:14} {count:6} lines")


def words_of(path: Path) -> int:
    """Lines of docstrings and whole-line comments."""
    tree = ast.parse(path.read_text())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = 0
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            first = node.body[0]
            found += (first.end_lineno or first.lineno) - first.lineno + 1
    with tokenize.open(path) as file:
        comments = [
            t for t in tokenize.generate_tokens(file.readline) if t.type == tokenize.COMMENT
        ]
    return found + sum(not token.line[: token.start[1]].strip() for token in comments)


if __name__ == "__main__":
    main()
