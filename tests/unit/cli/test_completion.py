"""What a shell is told that completes the command line, and what bash makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fentry.cli.__main__ import words
from fentry.cli.candidates import candidates
from fentry.cli.completion import SCRIPTS

SOURCE = Path(__file__).resolve().parents[3] / "src"
PRESS = (
    "; COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _fentry fentry; printf '%s\\n' \"${COMPREPLY[@]}\""
)

Bash = Callable[[str], list[str]]


def values(line: list[str], typed: str = "") -> list[str]:
    return [one.value for one in candidates(words, line, typed) if one.kind == "word"]


def kinds(line: list[str], typed: str = "") -> list[str]:
    return [one.kind for one in candidates(words, line, typed)]


@pytest.fixture(scope="module")
def cat() -> Iterator[int]:
    """A process that has its name: Popen returns a little before an exec gives it."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"here\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"here\n"
        yield process.pid


def script_of(shell: str) -> str:
    result = CliRunner().invoke(words, ["completion", shell])
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where `fentry` is this one, and shells find no settings of a user."""
    program = tmp_path / "fentry"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fentry "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(SOURCE), "COLUMNS": "60", "HOME": str(tmp_path)}
    settings = {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "ENV", "BASH_ENV"}
    return {name: text for name, text in os.environ.items() if name not in settings} | own


@pytest.fixture
def bash(tmp_path: Path, environment: dict[str, str]) -> Bash:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    script = tmp_path / "script"
    script.write_text(script_of("bash"))

    def run(command: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", f"source {script}; {command}"],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run


def test_commands_and_options_are_those_of_the_command_line() -> None:
    assert values([], "re") == ["record", "report"]
    assert values(["list"], "--c") == ["--count"]
    assert values([], "--v") == ["--version"]
    assert values(["nonsense"], "--") == values([], "--")


def test_values_are_those_of_the_option() -> None:
    assert values(["record", "--clock"]) == ["tsc", "percpu-counter"]
    assert values(["record", "--clock"], "p") == ["percpu-counter"]
    assert "chrome" in values(["export"])
    assert values(["completion"]) == ["bash", "zsh", "fish"]


def test_files_and_commands_are_left_to_the_shell() -> None:
    assert kinds(["report", "-i"]) == kinds(["list"], "/usr/bin/x") == ["file"]
    assert kinds(["record", "-F", "f", "-o"]) == kinds(["dump", "--core"]) == ["file"]
    assert kinds(["record", "-F", "f", "--"], "redi") == ["command"]
    assert kinds(["record", "-F", "f", "--", "redis-server"], "--") == ["file"]
    # nobody knows a pattern or a time, and no file is one
    assert kinds(["record", "-F"], "mal") == kinds(["stat", "-d"]) == []


def test_processes_are_found_by_number_and_by_name(cat: int) -> None:
    found = {one.value: one.meaning for one in candidates(words, ["record", "-p"], "ca")}
    assert found[str(cat)] == "cat"
    for line in (["stat", "--pid"], ["stat", "--pid", "="]):  # as bash splits --pid=12
        numbers = values(line, str(cat))
        assert str(cat) in numbers and all(one.startswith(str(cat)) for one in numbers)
    assert str(os.getpid()) not in values(["record", "-p"])


def test_threads_are_those_of_the_process_that_was_named(cat: int) -> None:
    (thread,) = candidates(words, ["record", "-p", str(cat), "--tid"], "")
    assert thread == (str(cat), "cat", "word")
    assert values(["report", "--tid"]) == []


def test_words_are_known_without_what_the_commands_need() -> None:
    program = (
        "import sys\nfrom fentry.cli.__main__ import main\nmain()\n"
        "print([name for name in ('numpy', 'iced_x86', 'elftools') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "_FENTRY_WORDS": "fentry"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**environment, "_FENTRY_TYPED": "sym"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == (
        "word\tsymfile\tName the generated code of a process for gdb and perf.\n[]\n"
    )


def test_bash_completes_what_has_one_end(bash: Bash, cat: int) -> None:
    assert bash("complete -p fentry") == ["complete -o nosort -F _fentry fentry"]
    assert bash("COMP_WORDS=(fentry comp)" + PRESS) == ["completion"]
    assert bash("COMP_WORDS=(fentry completion f)" + PRESS) == ["fish"]
    processes = bash(f"COMP_WORDS=(fentry record -p {cat})" + PRESS)
    assert str(cat) in [line.split()[0] for line in processes]


def test_bash_says_what_words_mean_only_where_it_lists_them(bash: Bash) -> None:
    several = "COMP_WORDS=(fentry re)"
    assert bash(several + PRESS) == [
        "record  (Trace functions of a process into a file.)",
        "report  (Show a recorded trace.)",
    ]
    assert bash("COLUMNS=20; " + several + PRESS) == ["record  (Trace func", "report  (Show a rec"]
    assert bash("COMP_TYPE=37; " + several + PRESS) == ["record", "report"]


def test_bash_completes_the_command_behind_the_dashes(bash: Bash) -> None:
    line = "COMP_WORDS=(fentry record -F malloc -- bas)"
    assert "bash" in bash(line + PRESS)


def test_fish_shows_candidates_and_what_they_mean(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish")
    script = tmp_path / "script"
    script.write_text(script_of("fish"))
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C 'fentry completion '"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_shells_can_parse_their_scripts(
    shell: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    (tmp_path / "script").write_text(script_of(shell))
    command = [shell, "-n", tmp_path / "script"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
