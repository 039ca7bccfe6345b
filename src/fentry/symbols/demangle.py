"""Names of C++ and Rust functions as their source has them."""

from __future__ import annotations

from functools import lru_cache

import cxxfilt


@lru_cache(maxsize=1 << 16)
def demangle(name: str) -> str:
    """The demangled name (Itanium C++ ABI, Rust), or `name` itself where it is not mangled."""
    if not name.startswith(("_Z", "_R")):
        return name
    try:
        return str(cxxfilt.demangle(name))
    except (cxxfilt.Error, UnicodeError):
        return name


def base_name(demangled: str) -> str:
    """A demangled name without parameters and template arguments: what people type."""
    depth = 0
    kept = []
    for i, letter in enumerate(demangled):
        if letter == "<" and demangled[:i].rpartition("operator")[2].strip("<=-") != "":
            depth += 1
        elif letter == "(" and not depth and not demangled.startswith("(anonymous", i):
            break
        if not depth:
            kept.append(letter)
        if letter == ">" and depth:
            depth -= 1
    return "".join(kept) or demangled
