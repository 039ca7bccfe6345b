"""Which functions of Debian's own files can be traced: python bench/coverage.py [FILE ...]

Writes docs/coverage.md, or with FILEs prints their rows. Counted is every address that a symbol
(STT_FUNC, STT_GNU_IFUNC) or a frame description names, but for those of linkage tables; debug files
are not looked for.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from fentry.sites.find import analyse
from fentry.sites.site import Reason
from fentry.symbols.elf import ElfImage
from support import CHECKOUT, Table, describe

PAGE = CHECKOUT / "docs" / "coverage.md"
FILES = (
    "libc.so.6", "libm.so.6", "libcrypto.so.3", "libssl.so.3", "libstdc++.so.6",
    "libsqlite3.so.0", "libz.so.1", "/usr/sbin/nginx", "/usr/bin/redis-server", "/usr/bin/bash",
    "/usr/bin/sqlite3", "/usr/bin/python3.11",
)  # fmt: skip
COLUMNS = (
    "file", "all", "traceable", "of all", "functions", "traceable", "of functions", "parts",
    "traceable", "refused: functions", "refused: parts", "analysis, s",
)  # fmt: skip
INSIDE = "inside another"
HEAD = """# Coverage

Of each file of Debian's packages, stripped as they are: how many functions and parts of functions
can be traced, and why the others cannot. **All** is every address that a symbol of a function or a
frame description (`.eh_frame`) names, each once; left out are the one or two descriptions of whole
tables of linkage stubs (`.plt`). **Parts** (`.cold`) are pieces of functions that jumps enter in
the middle of a call: they are traced if asked for (`part:WORD`). A description that begins inside a
symbol's range is counted as refused. [design/sites.md](design/sites.md) says how each is decided.

`make coverage` writes this page; `fentry list FILE --count` counts any other file.
"""
WORDS = {
    Reason.TOO_SHORT: "too short", Reason.PAGE: "page", Reason.BRANCH: "branch",
    Reason.POINTER: "pointer", Reason.INDIRECT_JUMP: "computed jump", Reason.START: "entry point",
    Reason.RESTORER: "signal return", Reason.PLT: "linkage stub", Reason.LOOP: "loop",
    Reason.SIZE_UNKNOWN: "end unknown", Reason.SYSTEM_CALL: "system call",
    Reason.NOT_MOVABLE: "not movable", Reason.CALL: "call",
}  # fmt: skip


def find(name: str) -> str:
    """The path of a file, of a library in the usual places; "" if it is not here."""
    if "/" in name:
        return name if os.path.exists(name) else ""
    found = glob.glob(f"/lib/*/{name}") + glob.glob(f"/usr/lib/{name}")
    return found[0] if found else ""


def row(name: str) -> list[str]:
    """One line of the table."""
    path = find(name)
    if not path:
        return [name, *["not installed"] * (len(COLUMNS) - 1)]
    begun = time.process_time()
    image = ElfImage.open(path)
    found = analyse(image)
    seconds = time.process_time() - begun
    parts, traceable = found.sites["part"], found.traceable
    inside = _inside_others(image)
    total = len(found.sites) + inside
    return [
        f"{os.path.basename(path)} {version(path)}",
        f"{total:,}", *_share(int(traceable.sum()), total),
        f"{int((~parts).sum()):,}", *_share(int((traceable & ~parts).sum()), int((~parts).sum())),
        f"{int(parts.sum()):,}", f"{int((traceable & parts).sum()):,}",
        _reasons(found.sites, ~parts & ~traceable, inside),
        _reasons(found.sites, parts & ~traceable), f"{seconds:.2f}",
    ]  # fmt: skip


def _share(count: int, total: int) -> tuple[str, str]:
    return f"{count:,}", f"{100 * count / total:.2f} %"


def _inside_others(image: ElfImage) -> int:
    # Frame descriptions that begin inside of a symbol's range, and not in a linkage table.
    starts = np.setdiff1d(image.frames["start"], image.functions.rows["vaddr"])
    for section in image.sections:
        if section.name.startswith((".plt", ".iplt")):
            starts = starts[(starts < section.vaddr) | (starts >= section.vaddr + section.size)]
    return len(starts)


def _reasons(sites: NDArray[np.void], which: NDArray[np.bool_], inside: int = 0) -> str:
    values, numbers = np.unique(sites["reason"][which], return_counts=True)
    counts = {WORDS.get(Reason(int(v)), Reason(int(v)).name.lower()): int(n)
              for v, n in zip(values, numbers, strict=True)}  # fmt: skip
    if inside:
        counts[INSIDE] = inside
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{word} {count}" for word, count in ordered)


def version(path: str) -> str:
    """The version of the Debian package that has a file, "" if none is known to."""
    for candidate in (path, os.path.realpath(path), os.path.realpath(path).removeprefix("/usr")):
        done = subprocess.run(
            ["dpkg-query", "-S", candidate], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            package = done.stdout.partition(": ")[0]
            asked = ["dpkg-query", "-W", "-f", "${Version}", package]
            return subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return ""


def main() -> None:
    """Write the page, or print rows of the files that are named."""
    table = Table("Functions of Debian's files", COLUMNS)
    for name in sys.argv[1:] or FILES:
        table.add(*row(name))
    if sys.argv[1:]:
        table.print()
        return
    with contextlib.redirect_stdout(io.StringIO()) as text:
        table.print()
    PAGE.write_text(f"{HEAD}\n{describe()}\n\n{text.getvalue().strip()}\n")
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
