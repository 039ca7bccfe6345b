"""Golden texts: a difference is shown, and written only when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.golden import compare


def test_equal_text_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FENTRY_GOLDEN", raising=False)
    (tmp_path / "a.s").write_text("ret\n")

    compare("a.s", "ret\n", tmp_path)


def test_changed_text_fails_with_a_diff_and_the_file_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FENTRY_GOLDEN", raising=False)
    (tmp_path / "a.s").write_text("push rax\nret\n")

    with pytest.raises(AssertionError, match=r"(?s)a\.s has changed.*-push rax\n\+push rcx\n ret"):
        compare("a.s", "push rcx\nret\n", tmp_path)
    assert (tmp_path / "a.s").read_text() == "push rax\nret\n"


def test_missing_file_fails_with_the_way_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FENTRY_GOLDEN", raising=False)

    with pytest.raises(AssertionError, match=r"no golden file b\.s; FENTRY_GOLDEN=write makes it"):
        compare("b.s", "ret\n", tmp_path)


def test_file_is_written_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FENTRY_GOLDEN", "write")

    compare("sub/c.s", "ret\n", tmp_path)

    assert (tmp_path / "sub" / "c.s").read_text() == "ret\n"
