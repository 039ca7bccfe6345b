"""Names of C++ and Rust functions as their source has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from fentry.symbols.cxx import demangle_cxx
from fentry.symbols.rust import demangle_rust

# Parts of a name that contain brackets or spaces themselves; a conversion operator ends where
# its parameters begin.
_WHOLE = re.compile(
    r'\boperator"" ?\w+|'
    r"\(anonymous namespace\)|\(\.[^)]*\)|\{lambda\([^{}]*\)#\d+\}|\boperator(?:"
    r"\(\)|\[\]|->\*?|<=>|<<=?|>>=?|<=?|>=?|[-+*/%^&|~!=,]+"
    r"| (?:new|delete)(?:\[\])?| [^(]*)"
)

_HASH = re.compile(r"::h[0-9a-f]{16}$")


# Of the names that are remembered. More than a trace has, and few enough to be kept.
_MOST_LETTERS = 1 << 26
_AT_ONCE = 1024
# How deep brackets may lie in each other: a name from a file can consist of them.
_DEEPEST = 16


def demangle(name: str) -> str:
    """The demangled name (Itanium C++ ABI, Rust), or `name` itself where it is not mangled, or
    longer than a real one can be (cxx.py, rust.py)."""
    if not name.startswith(("_Z", "_R")):
        return name
    return _remembered.get(name) or next(demangle_all([name]))


def demangle_all(names: Iterable[str]) -> Iterator[str]:
    """demangle() of each, in half of the time of one after the other."""
    every = iter(names)
    while part := list(islice(every, _AT_ONCE)):
        if _remembered.letters > _MOST_LETTERS:
            _remembered.clear()
            _remembered.letters = 0
        mangled = [name for name in part if name.startswith(("_Z", "_R"))]
        _read(list(dict.fromkeys(name for name in mangled if name not in _remembered)))
        yield from [_remembered.get(name, name) for name in part]


class _Remembered(dict[str, str]):
    # Demangled names by the mangled ones, forgotten when they have become too many letters.

    letters = 0

    def add(self, name: str, plain: str) -> None:
        self.letters += len(name) + len(plain)
        self[name] = plain


_remembered = _Remembered()


def _read(names: Sequence[str]) -> None:
    # Remember what they are demangled.
    rust = {name: plain for name in names if (plain := demangle_rust(name)) is not None}
    others = [name for name in names if name not in rust]
    for name, plain in (*rust.items(), *zip(others, demangle_cxx(others), strict=True)):
        _remembered.add(name, plain)


def base_name(demangled: str, deepest: int = _DEEPEST) -> str:
    """A demangled name without return type, parameters, template arguments and the hash of a Rust
    function: what people type. A method of `<Type as Trait>` is one of Type; of such a Type in
    another, `deepest` times."""
    demangled = _HASH.sub("", demangled)
    kept, i = "", 0
    if demangled.startswith("decltype ("):
        i = _after_bracket(demangled, len("decltype "), "(", ")") + 1
    elif demangled.startswith("<") and deepest:
        end = _after_bracket(demangled, 0, "<", ">")
        own = demangled[1 : end - 1]
        kept, i = base_name(_before_as(own), deepest - 1), end
    while i < len(demangled):
        if special := _WHOLE.match(demangled, i):  # an operator, whose brackets are its name
            kept += special[0]
            i = special.end()
            continue
        letter = demangled[i]
        if letter == "<":
            i = _after_bracket(demangled, i, "<", ">")
            kept = kept.removesuffix("::")  # Rust: path::<arguments>
            continue
        if letter == "(":
            break  # the parameters
        if letter != " ":
            kept += letter
        elif demangled[i + 1 : i + 2] != "<":  # "operator< <int>" has one inside
            kept = ""  # what came before was the return type
        i += 1
    return kept or demangled


def _before_as(text: str) -> str:
    # The type of "Type as Trait".
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter in "<([") - (letter in ">)]" and text[i - 1] != "-")
        if not depth and text.startswith(" as ", i):
            return text[:i]
    return text


def _after_bracket(text: str, start: int, opening: str, closing: str) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == opening) - (text[i] == closing and text[i - 1] != "-")
        if not depth:
            return i + 1
    return len(text)
