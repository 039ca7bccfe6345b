"""Names of C++ and Rust functions as their source has them."""

from __future__ import annotations

import re
from functools import lru_cache

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


@lru_cache(maxsize=1 << 16)
def demangle(name: str) -> str:
    """The demangled name (Itanium C++ ABI, Rust), or `name` itself where it is not mangled."""
    if not name.startswith(("_Z", "_R")):
        return name
    rust = demangle_rust(name)
    if rust is not None:
        return rust
    import cxxfilt  # slow to import, and for programs in C++ only

    try:
        return str(cxxfilt.demangle(name))
    except (cxxfilt.Error, UnicodeError):
        return name


def base_name(demangled: str) -> str:
    """A demangled name without return type, parameters, template arguments and the hash of a Rust
    function: what people type. A method of `<Type as Trait>` is one of Type."""
    demangled = _HASH.sub("", demangled)
    kept, i = "", 0
    if demangled.startswith("decltype ("):
        i = _after_bracket(demangled, len("decltype "), "(", ")") + 1
    elif demangled.startswith("<"):
        end = _after_bracket(demangled, 0, "<", ">")
        own = demangled[1 : end - 1]
        kept, i = base_name(_before_as(own)), end
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
