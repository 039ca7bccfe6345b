"""The command `fentry`: a table of words, each in a file of its own that is read when used."""

from __future__ import annotations

import importlib
import sys

import click

from fentry import __version__
from fentry.errors import FentryError

COMMANDS = {
    "record": ("fentry.cli.record", "Trace functions of a process into a file."),
    "report": ("fentry.cli.report", "Show a recorded trace."),
    "stat": ("fentry.cli.stat", "Count calls of functions of a process."),
    "list": ("fentry.cli.list", "List functions: traceable, or why not."),
    "status": ("fentry.cli.status", "Show what is attached to a process."),
    "detach": ("fentry.cli.detach", "Restore a process, whoever attached to it."),
    "doctor": ("fentry.cli.doctor", "Say what would go wrong, on this machine and with a process."),
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
        words(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except FentryError as error:
        click.echo(f"fentry: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
