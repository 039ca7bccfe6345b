"""docs/man: as generated, and as groff reads it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from tools.make_man import FOLDER, pages, sessions, tables

PAGES = sorted(FOLDER.glob("*.1"))


def test_the_pages_are_what_the_commands_say() -> None:
    kept = {path.name: path.read_text() for path in PAGES}
    generated = pages()
    assert kept.keys() == generated.keys(), "run tools/make_man.py"
    differ = [name for name, text in generated.items() if kept[name] != text]
    assert differ == [], "run tools/make_man.py"


def test_groff_formats_all_without_a_warning() -> None:
    if shutil.which("groff") is None:
        pytest.skip("no groff (groff-base)")
    for page in PAGES:
        command = ["groff", "-man", "-Tutf8", "-ww", "-rLL=80n", "-P-cbou", str(page)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == "", page.name
        assert done.stdout.lstrip().upper().startswith(page.stem.upper() + "(1)")


def test_groff_shows_characters_that_it_would_beautify() -> None:
    if shutil.which("groff") is None:
        pytest.skip("no groff (groff-base)")
    command = ["groff", "-man", "-Tutf8", "-rLL=200n", "-P-cbou", str(FOLDER / "fentry-record.1")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "-p, --pid INTEGER" in shown
    assert (
        "$ fentry record -F 'libc!malloc' -F 'libc!getenv' -- sh -c 'echo hello; exit 3'" in shown
    )


def test_examples_and_tables_are_those_of_the_page_in_docs() -> None:
    page = (
        "# fentry stat\n\n    $ fentry stat -p 1 | head\n    12 calls\n    $ fentry record -p 1\n\n"
        "    $ sudo fentry stat -- true\n    $ fentry stat -p 1 | head\n\n"
        "| option | meaning |\n|---|---|\n| `-p` | the process |\n\n"
        "| word | chooses |\n|---|---|\n"
        "| `GLOB` | **names**, [as](x.md) of `sh` |\n| `!W` | none |\n"
    )
    assert sessions("stat", page) == ["fentry stat -p 1 | head", "sudo fentry stat -- true"]
    assert tables(page) == [("word", [("GLOB", "names, as of sh"), ("!W", "none")])]
