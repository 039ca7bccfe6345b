"""Writes docs/man: a manual page for fentry and one for each command, from the click commands.

`python tools/make_man.py` writes them anew, `--check` says which differ. Exit codes are the table
in docs/index.md, examples and words the sessions and tables in docs/commands. The macros are those
of man(7).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from fentry import __version__
from fentry.cli.__main__ import COMMANDS, words

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"
FOLDER = DOCS / "man"

FILES = (
    (
        "trace.fentry",
        "The trace that record and dump write and report and export read, by default.",
    ),
    ("~/.cache/fentry", "The analysis of each file, kept by its build-id; may be removed."),
    ("/tmp/perf-PID.map", "Names of generated code for perf, written by symfile --perf."),
)
SEE_ALSO = ("gdb(1)", "perf(1)", "ptrace(2)", "proc(5)")


def main() -> None:
    """Write what differs, or name it."""
    check = "--check" in sys.argv[1:]
    texts = pages()
    differ = [name for name, text in texts.items() if _read(FOLDER / name) != text]
    gone = [path for path in FOLDER.glob("*.1") if path.name not in texts]
    if check:
        print("\n".join([*differ, *(path.name for path in gone)]) or "the pages are as generated")
        sys.exit(bool(differ or gone))
    FOLDER.mkdir(exist_ok=True)
    for name in differ:
        (FOLDER / name).write_text(texts[name])
    for path in gone:
        path.unlink()


def pages() -> dict[str, str]:
    """Every page, by the name of its file."""
    texts = {"fentry.1": _joined(_main_page())}
    for word in COMMANDS:
        texts[f"fentry-{word}.1"] = _joined(_command_page(word))
    return texts


def _main_page() -> Iterator[str]:
    ctx = words.make_context("fentry", [], resilient_parsing=True)
    yield from _head("fentry", "trace the functions of live, unmodified processes")
    yield from _synopsis(words, ctx)
    yield from _description(words)
    yield ".SH COMMANDS"
    for word, (_, text) in COMMANDS.items():
        yield from _item(_page(f"fentry-{word}(1)"), text)
    yield from _options(words, ctx)
    yield ".SH EXIT STATUS"
    for code, meaning in exit_codes():
        yield from _item(_bold(code), meaning)
    yield ".SH FILES"
    for path, meaning in FILES:
        yield from _item(r"\fI" + _escaped(path) + r"\fR", meaning)
    yield from _examples(
        [line for word in COMMANDS for line in sessions(word, _page_in_docs(word))[:1]]
    )
    yield from _see_also([*(f"fentry-{word}(1)" for word in COMMANDS), *SEE_ALSO])


def _command_page(word: str) -> Iterator[str]:
    parent = words.make_context("fentry", [], resilient_parsing=True)
    command = words.get_command(parent, word)
    assert command is not None
    ctx = command.make_context(word, [], parent=parent, resilient_parsing=True)
    summary = COMMANDS[word][1].removesuffix(".")
    yield from _head(f"fentry-{word}", summary[0].lower() + summary[1:])
    yield from _synopsis(command, ctx)
    yield from _description(command)
    yield from _options(command, ctx)
    for heading, rows in tables(_page_in_docs(word)):
        yield f".SH {heading.upper()}S"
        for tag, text in rows:
            yield from _item(_bold(tag), text)
    yield ".SH EXIT STATUS"
    yield _text("0 when it is done; otherwise as in") + "\n" + _page("fentry(1)") + "."
    yield from _examples(sessions(word, _page_in_docs(word)))
    yield from _see_also(["fentry(1)", *(f"fentry-{w}(1)" for w in COMMANDS if w != word)])


def exit_codes() -> list[tuple[str, str]]:
    """Codes and what they mean: the table in docs/index.md."""
    text = (DOCS / "index.md").read_text().partition("## Exit codes")[2]
    rows = re.findall(r"^\| ([\d, ]+) \| (.*) \|$", text, re.MULTILINE)
    return [(code, _plain(meaning)) for code, meaning in rows]


def sessions(word: str, page: str) -> list[str]:
    """The command lines that a page of docs/commands shows for its command."""
    found = re.findall(rf"^    \$ (.*\bfentry {word}\b.*)$", page, re.MULTILINE)
    return list(dict.fromkeys(found))


def tables(page: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """What a page of docs/commands explains in tables of two columns, but for options."""
    found = []
    for heading, body in re.findall(
        r"^\| (\w+) \| [^|]+ \|\n\|---\|---\|\n((?:\|.*\|\n)+)", page, re.MULTILINE
    ):
        if heading != "option":
            rows = (row.strip("| ").split(" | ", 1) for row in body.splitlines())
            found.append((heading, [(_plain(tag), _plain(text)) for tag, text in rows]))
    return found


def _page_in_docs(word: str) -> str:
    return _read(DOCS / "commands" / f"{word}.md")


def _plain(markdown: str) -> str:
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", markdown)
    return text.replace("`", "").replace("**", "")


def _head(name: str, summary: str) -> Iterator[str]:
    yield r".\" Written by tools/make_man.py from the commands: change those, and run it again."
    yield f'.TH {name.upper()} 1 "" "fentry {__version__}" "fentry"'
    yield ".SH NAME"
    yield rf"{_escaped(name)} \- {_escaped(summary)}"


def _synopsis(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    pieces = " ".join(command.collect_usage_pieces(ctx))
    yield _bold(ctx.command_path) + " " + _escaped(pieces)


def _description(command: click.Command) -> Iterator[str]:
    yield ".SH DESCRIPTION"
    texts = [*(command.help or "").split("\n\n"), command.epilog or ""]
    for number, text in enumerate(filter(None, texts)):
        if number:
            yield ".PP"
        yield _text(text)


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield ".SH OPTIONS"
    for param in command.params:
        record = param.get_help_record(ctx)
        if record is not None and record[1]:
            yield from _item(_bold(record[0]), record[1])
    # not from click, which keeps the option that the first caller in a process has asked for
    yield from _item(_bold(", ".join(ctx.help_option_names)), "Show this message and exit.")


def _examples(lines: list[str]) -> Iterator[str]:
    if lines:
        yield ".SH EXAMPLES"
        yield ".nf"
        yield from (_escaped(f"$ {line}") for line in lines)
        yield ".fi"


def _see_also(names: list[str]) -> Iterator[str]:
    yield ".SH SEE ALSO"
    yield ",\n".join(map(_page, names))


def _item(tag: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield tag
    yield _text(text)


def _page(name: str) -> str:
    title, _, section = name.partition("(")
    return _bold(title) + f"({section}"


def _bold(text: str) -> str:
    return rf"\fB{_escaped(text)}\fR"


def _text(text: str) -> str:
    # one line, and no grave accents: a terminal has no code font
    return _escaped(" ".join(text.split()).replace("`", "'"))


def _escaped(text: str) -> str:
    # groff_char(7): these are typographic characters unless they are escaped
    for character, name in (
        ("\\", r"\(rs"), ("-", r"\-"), ("'", r"\(aq"), ("`", r"\(ga"), ("^", r"\(ha"),
        ("~", r"\(ti"),
    ):  # fmt: skip
        text = text.replace(character, name)
    # a line that begins with a dot would be a request
    return r"\&" + text if text.startswith(".") else text


def _joined(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    main()
