"""Small ELF files made by gcc from text in a test, and what binutils say about them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support.machine import need_tool

SHARED = ("-shared", "-nostdlib", "-Wl,--build-id", "-Wl,-Bsymbolic")


def assemble(directory: Path, source: str, *flags: str, name: str = "code.so") -> Path:
    """The shared object (or with other `flags` than SHARED, the program) of GNU as text."""
    return _gcc(directory, source, "s", flags or SHARED, name)


def compile_c(directory: Path, source: str, *flags: str, name: str = "program") -> Path:
    """The file that gcc makes of C text, by default a position independent program."""
    return _gcc(directory, source, "c", flags, name)


def compile_cpp(directory: Path, source: str, *flags: str, name: str = "program") -> Path:
    """The file that g++ makes of C++ text."""
    return _gcc(directory, source, "cpp", (*flags, "-lstdc++"), name)


def addresses(path: Path) -> dict[str, int]:
    """nm's value of every defined symbol, by name without a version."""
    text = run("nm", "--defined-only", str(path))
    return {
        words[2].partition("@")[0]: int(words[0], 16)
        for words in (line.split() for line in text.splitlines())
        if len(words) == 3
    }


def run(tool: str, *arguments: str) -> str:
    """What a tool prints; it must be there and succeed."""
    done = subprocess.run([need_tool(tool), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def instructions(path: Path) -> dict[int, tuple[bytes, str]]:
    """objdump's listing of all code: vaddr -> (bytes, text)."""
    text = run("objdump", "-d", "-w", "--no-show-raw-insn", str(path))
    raw = run("objdump", "-d", "-w", str(path))
    texts = {
        int(match[1], 16): match[2]
        for match in re.finditer(r"^ *([0-9a-f]+):\t(.*)$", text, re.MULTILINE)
    }
    return {
        int(match[1], 16): (bytes.fromhex(match[2]), texts.get(int(match[1], 16), ""))
        for match in re.finditer(r"^ *([0-9a-f]+):\t((?:[0-9a-f]{2} )+)", raw, re.MULTILINE)
    }


def _gcc(directory: Path, source: str, suffix: str, flags: tuple[str, ...], name: str) -> Path:
    text, output = directory / f"{name}.{suffix}", directory / name
    text.write_text(source)
    command = [need_tool("gcc"), str(text), "-o", str(output), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output
