"""Texts kept in tests/golden: listings and outputs that are reviewed when they change."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
SWITCH = "FENTRY_GOLDEN"


def compare(name: str, text: str, directory: Path = GOLDEN) -> None:
    """Fails with a diff if `text` is not that of the golden file.

    With FENTRY_GOLDEN=write in the environment the file is written instead.
    """
    path = directory / name
    if os.environ.get(SWITCH) == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    if not path.exists():
        raise AssertionError(f"no golden file {name}; {SWITCH}=write makes it")
    kept = path.read_text()
    if kept == text:
        return
    diff = difflib.unified_diff(
        kept.splitlines(keepends=True),
        text.splitlines(keepends=True),
        f"tests/golden/{name}",
        "now",
    )
    raise AssertionError(f"{name} has changed; {SWITCH}=write accepts it\n{''.join(diff)}")
