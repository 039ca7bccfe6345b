"""What a wheel installs beside the package."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def test_the_wheel_has_manual_pages_and_completions(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shared = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    assert shared >= {
        "share/man/man1/fentry.1",
        "share/man/man1/fentry-record.1",
        "share/bash-completion/completions/fentry",
        "share/zsh/site-functions/_fentry",
        "share/fish/vendor_completions.d/fentry.fish",
    }
    assert "fentry/cli/completions/fentry.bash" in names
