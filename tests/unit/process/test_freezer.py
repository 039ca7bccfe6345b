"""Which control group of a process is frozen, by the files of both versions of cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fentry.errors import AttachError
from fentry.process import freezer


@pytest.fixture
def own_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Both hierarchies are a folder of ours, in which every group of this process exists."""
    monkeypatch.setattr(freezer, "_V1", str(tmp_path / "v1"))
    monkeypatch.setattr(freezer, "_V2", (str(tmp_path / "v2"),))
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        version = "v2" if not controllers else "v1" if "freezer" in controllers else ""
        if version:
            (tmp_path / f"{version}{path}").mkdir(parents=True, exist_ok=True)
    return tmp_path


def test_a_group_of_the_second_version_says_it_in_its_events(own_path: Path) -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    paths = [line.split(":", 2)[2] for line in lines if line.startswith("0::")]
    if not paths:
        pytest.skip("this machine has no cgroups of the second version")
    group = Path(f"{own_path / 'v2'}{paths[0]}")
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert freezer.frozen_group(os.getpid()) == ""
    (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert freezer.frozen_group(os.getpid()) == f"{own_path / 'v2'}{paths[0]}"
    with pytest.raises(AttachError, match=f"cannot stop process {os.getpid()}: its control group"):
        freezer.refuse_frozen(os.getpid())


def test_without_such_a_file_nothing_is_frozen(own_path: Path) -> None:
    freezer.refuse_frozen(os.getpid())


def test_a_process_that_is_gone_is_in_no_group() -> None:
    assert freezer.frozen_group(4194304) == ""
