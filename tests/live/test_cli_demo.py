"""`make demo` as it is run: every proof holds, for root and for an unprivileged user."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.cli import COMMANDS, folder_of
from tests.support.machine import missing
from tests.support.unprivileged import Account, _captured_main

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    assert COMMANDS  # their modules are loaded: an account may not be able to read them
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module
    spec.loader.exec_module(module)
    return module


def test_demo_proves_that_a_live_program_is_left_as_it_was(
    account: Account, demo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "TRACED_S", 0.2)
    if not account.can_execute("/usr/bin/python3"):
        missing("/usr/bin/python3")
    with folder_of(account) as folder:
        monkeypatch.chdir(folder)
        done = account.run(_captured_main, lambda: sys.exit(demo.main()), ["demo.py"])
    assert done.code == 0, done.out + done.err
    assert "# tracer: function\n" in done.out
    assert "DIFFERENT" not in done.out
    assert "executable mappings, byte for byte as before, none added" in done.out
    assert ": right; exit status 0\n" in done.out
    assert "\nPASS  in " in done.out


def test_demo_fails_when_the_text_differs(demo: ModuleType) -> None:
    before = demo.State({"0 libc": "aa"}, ["0"], ["1"])
    during = demo.State({"0 libc": "bb"}, ["0"], ["1"])
    demo.prove_text(before, during, before)
    with pytest.raises(demo.Failed, match="the text is not what it was"):
        demo.prove_text(before, during, during)
    with pytest.raises(demo.Failed, match="no text was patched"):
        demo.prove_text(before, before, before)
    with pytest.raises(demo.Failed, match="descriptors or threads"):
        demo.prove_text(before, during, demo.State({"0 libc": "aa"}, ["0", "7"], ["1"]))
