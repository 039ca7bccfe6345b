"""docs/python.md: its program is built, its sessions are typed in, and its tests are run."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas  # noqa: F401  # loaded before an account is one that cannot read it
import pytest
from tests.support.build import CHECKOUT
from tests.support.cli import compile_c, folder_of
from tests.support.unprivileged import Account, accounts

import fentry

PAGE = (CHECKOUT / "docs" / "python.md").read_text()


def blocks(language: str) -> list[str]:
    """What the page has in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


class Alike(doctest.OutputChecker):
    """Outputs are alike if they are but for spaces, and for what no two runs have in common: times,
    pids, addresses, and what else a C library has that is called so."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return _plain(want) == _plain(got)


def _plain(text: str) -> str:
    text = re.sub(r"(?m)^ *\d+\.\d+ +\d+ +\d+ ", "TIME CPU TID ", text)
    text = re.sub(r"(near names: \w+).*", r"\1", text)
    text = re.sub(r"/\S*/shop\b", "/shop", text)
    text = re.sub(r"\bcpu=\d+", "cpu=0", text)
    return " ".join(re.sub(r"\d+\.\d+|\d{2,}", "0", text).split())


@pytest.fixture(scope="module")
def account() -> Account:
    """One that can do what the page does: it starts `fentry` as a command."""
    return next(one for one in reversed(accounts()) if one.can_execute(sys.executable))


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    """With the program of the page, and `fentry` as a command."""
    with folder_of(account) as folder:
        compile_c(folder, blocks("c")[0]).rename(folder / "shop")
        command = folder / "fentry"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fentry "$@"\n')
        command.chmod(0o755)
        yield folder


def test_the_sessions_of_the_page(account: Account, folder: Path) -> None:
    def controller() -> list[str]:
        os.chdir(folder)
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        told: list[str] = []
        runner = doctest.DocTestRunner(Alike(), verbose=False)
        test = doctest.DocTestParser().get_doctest(
            "\n".join(blocks("pycon")), {}, "python.md", None, 0
        )
        runner.run(test, out=told.append)
        return told

    assert "".join(account.run(controller)) == ""


def test_the_tests_of_the_page(account: Account, folder: Path) -> None:
    class Shop:
        def __init__(self) -> None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process: Any = subprocess.Popen([folder / "shop"], **pipes)  # type: ignore[call-overload]
            self.pid = self.process.pid

        def buy(self, items: int) -> int:
            self.process.stdin.write(b"%d\n" % items)
            self.process.stdin.flush()
            return int(self.process.stdout.readline())

    def controller() -> int:
        names: dict[str, Any] = {"fentry": fentry}
        exec(compile("\n".join(blocks("python")), "python.md", "exec"), names)
        tests = [value for name, value in names.items() if name.startswith("test_")]
        for test in tests:
            shop = Shop()
            test(shop)
            shop.process.stdin.close()
            shop.process.wait()
        return len(tests)

    assert account.run(controller) == 2
