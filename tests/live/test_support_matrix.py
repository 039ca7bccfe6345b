"""docs/support.md says what every command does with every kind of target: that is what happens.

Whatever is refused is refused before anything is touched; whatever works leaves nothing behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.live.programs.kinds import KINDS, Subject
from tests.support.cli import folder_of
from tests.support.state import State, diff, snapshot
from tests.support.unprivileged import Account, Completed

TABLE = Path(__file__).resolve().parent.parent.parent / "docs" / "support.md"
COMMANDS = ("list", "record", "stat", "arm, dump", "symfile", "detach", "status", "doctor")
DURATIONS = ("30ms", "300ms", "5s")  # the later ones where a busy machine let the target not run
REFUSED = re.compile(r"refused \((\d+)\)")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: what is said of each command, and why what is refused is."""

    cells: dict[str, str]
    why: str


def rows_of(account: str) -> dict[str, Row]:
    """The table under the heading of an account, by kind of target."""
    _, _, rest = TABLE.read_text().partition(f"## As {account}\n")
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    heads, _, *rows = [[word.strip() for word in line.strip("|").split("|")] for line in lines]
    assert heads == ["kind of target", *COMMANDS, "why"]
    return {kind: Row(dict(zip(COMMANDS, cells, strict=True)), why) for kind, *cells, why in rows}


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another tracer is not waited for."""
    monkeypatch.setattr("fentry.process.stop.OTHERS_LIMIT_S", 0.01)


def test_every_kind_has_a_row() -> None:
    assert list(rows_of("unprivileged")) == list(KINDS)
    assert rows_of("root").keys() < KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_does_what_the_table_says(
    account: Account, folder: Path, hasty: None, kind: str
) -> None:
    row = rows_of(account.name).get(kind)
    if row is None:
        return  # root does not depend on it
    with KINDS[kind](account) as target:
        before = state_of(target)
        done = {
            word: command(target, folder)
            for word, command in (
                ("list", listed), ("status", status), ("doctor", doctor), ("record", recorded),
                ("stat", counted), ("arm, dump", armed), ("symfile", named), ("detach", detached),
            )
        }  # fmt: skip
        assert diff(before, state_of(target)) == []
    found = {
        word: "works" if not end.code else f"refused ({end.code})" for word, end in done.items()
    }
    found["doctor"] = "ok" if not done["doctor"].code else "problem"
    assert found == row.cells, {word: end.err + end.out for word, end in done.items() if end.code}
    # doctor foretells it, and both say why
    assert (found["doctor"] == "problem") == (done["record"].code != 0), done["doctor"].out
    for word in ("record", "stat", "arm, dump", "doctor"):
        if done[word].code:
            assert row.why in done[word].err + done[word].out


def state_of(target: Subject) -> State:
    """What can be seen of a target that nothing but fentry would change."""
    state = snapshot(target.tid)
    if not target.moves:
        return state
    files = {name: text for name, text in state.text.items() if "/" in name}
    return State(files, {}, {}, {}, {}, state.pages)


def listed(target: Subject, folder: Path) -> Completed:
    done = target.run("list", "-p", target.pid, *target.words)
    if not done.code:
        assert not done.err.startswith("0 traceable"), done.err
    return done


def status(target: Subject, folder: Path) -> Completed:
    done = target.run("status", "-p", target.pid)
    if not done.code:
        assert done.out == f"{target.pid}: not traced\n"
    return done


def doctor(target: Subject, folder: Path) -> Completed:
    return target.run("doctor", "-p", target.pid)


def filters(target: Subject) -> list[str]:
    return [part for word in target.words for part in ("-F", word)]


def recorded(target: Subject, folder: Path) -> Completed:
    for duration in DURATIONS:
        done = target.run("record", "-p", target.pid, *filters(target), "-d", duration,
                          "-o", folder / "t")  # fmt: skip
        if done.code or not target.is_busy or not done.err.startswith("0 events"):
            break
    if not done.code:
        assert not target.is_busy or not done.err.startswith("0 events"), done.err
        assert target.run("report", "-i", folder / "t").code == 0
    return done


def counted(target: Subject, folder: Path) -> Completed:
    calls = []
    for duration in DURATIONS:
        done = target.run("stat", "-p", target.pid, *filters(target), "-d", duration, "--json")
        calls = [row["calls"] for row in json.loads(done.out)] if not done.code else []
        if done.code or not target.is_busy or calls:
            break
    assert done.code or not target.is_busy or sum(calls) > 0
    return done


def armed(target: Subject, folder: Path) -> Completed:
    done = target.run("arm", "-p", target.pid, *filters(target), "-m", "64K")
    if done.code:
        return done
    return target.run("dump", "-p", target.pid, "-o", folder / "d")


def named(target: Subject, folder: Path) -> Completed:
    return target.run("symfile", "-p", target.pid, "-o", folder / "s")


def detached(target: Subject, folder: Path) -> Completed:
    return target.run("detach", "--force", "-p", target.pid)
