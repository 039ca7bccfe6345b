"""fentry completion: the script by which a shell completes the command line of fentry."""

from __future__ import annotations

from importlib.resources import files

import click

SCRIPTS = {"bash": "fentry.bash", "zsh": "_fentry", "fish": "fentry.fish"}
"""The file in fentry/cli/completions for each shell, by the name under which that shell looks for
it: bash-completion, zsh's $fpath, fish's vendor_completions.d."""


@click.command()
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
def completion(shell: str) -> None:
    """Print what completes the words of fentry in a shell.

    Commands, options and their values are completed, processes by number or name:
    `source <(fentry completion bash)`, or put it where the shell looks for such files.
    """
    click.echo(
        files("fentry.cli").joinpath("completions", SCRIPTS[shell]).read_text("utf-8"), nl=False
    )
