"""The command `fentry`: a table of words, each in a file of its own that is read when used."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from fentry import __version__
from fentry.errors import FentryError, TargetGone

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXIT_INTERRUPTED = 130  # 128 + SIGINT and 128 + SIGPIPE, as a shell says
EXIT_BROKEN_PIPE = 141

COMMANDS = {
    "record": ("fentry.cli.record", "Trace functions of a process into a file."),
    "live": ("fentry.cli.live", "Print calls of functions of a process as they happen."),
    "report": ("fentry.cli.report", "Show a recorded trace."),
    "export": ("fentry.cli.export", "Write a recorded trace for another tool."),
    "stat": ("fentry.cli.stat", "Count calls of functions of a process."),
    "list": ("fentry.cli.list", "List functions: traceable, or why not."),
    "arm": ("fentry.cli.arm", "Let a process record its last calls by itself."),
    "dump": ("fentry.cli.dump", "Write the last calls of an armed process."),
    "status": ("fentry.cli.status", "Show what is attached to a process."),
    "symfile": ("fentry.cli.symfile", "Name the generated code of a process for gdb and perf."),
    "detach": ("fentry.cli.detach", "Restore a process, whoever attached to it."),
    "doctor": ("fentry.cli.doctor", "Say what would go wrong, on this machine and with a process."),
    "completion": ("fentry.cli.completion", "Print what completes the words of fentry in a shell."),
}


class Words(click.Group):
    """A group that imports a command's module only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The words in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command behind a word."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, cmd_name if cmd_name != "list" else "list_")
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader of the output that went away ends it quietly."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _silence_stdout()
            sys.exit(EXIT_BROKEN_PIPE)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """The words, without importing anything, and the options."""
        from click.shell_completion import CompletionItem

        words = [
            CompletionItem(word, help=text)
            for word, (_, text) in COMMANDS.items()
            if word.startswith(incomplete)
        ]
        return words + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(word, text) for word, (_, text) in COMMANDS.items()])


@click.group(cls=Words, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fentry")
def words() -> None:
    """Trace the functions of live, unmodified processes.

    fentry changes five bytes at each chosen function, records its calls into shared memory, and
    puts everything back when it leaves. Patterns are globs; MODULE!GLOB narrows to a module.
    """


def main() -> None:
    """Run the command line; errors are two lines and an exit code by kind."""
    try:
        if "_FENTRY_WORDS" in os.environ:  # a shell asks what can be typed next
            importlib.import_module("fentry.cli.candidates").answer(words)
            return
        words(prog_name="fentry", standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except FentryError as error:
        click.echo(f"fentry: {error}", err=True)
        sys.exit(error.exit_code)
    except ProcessLookupError:
        click.echo("fentry: the process is gone\n  cause: it ended in the middle", err=True)
        sys.exit(TargetGone.exit_code)
    except OSError as error:
        _silence_stdout()
        click.echo(f"fentry: {error.strerror or error}", err=True)
        where = f"file: {error.filename}" if error.filename else "the output cannot be written"
        click.echo(f"  cause: {where}", err=True)
        sys.exit(1)


def _silence_stdout() -> None:
    # the interpreter flushes stdout once more when it ends, and would complain
    if sys.stdout is not None:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
