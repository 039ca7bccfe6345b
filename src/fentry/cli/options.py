"""Options that several commands share, and their units."""

from __future__ import annotations

import math

import click

from fentry.errors import BadInput

_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIMES = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 366 * 86400.0
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def parse_bytes(text: str) -> int:
    """A size like 64K, 4M, 1G or a number of bytes. Raises BadInput."""
    number, unit = _split(text)
    unit = unit.upper().removesuffix("B").removesuffix("I")
    if unit not in _SIZES or number <= 0:
        raise BadInput(f"{text!r} is no size", remedy="64K, 4M, 1G")
    return int(number * _SIZES[unit])


def parse_seconds(text: str) -> float:
    """A time like 200us, 10ms, 2s, 1m; a bare number is seconds. Raises BadInput."""
    number, unit = _split(text)
    if unit not in _TIMES or number <= 0 or number * _TIMES[unit] > _LONGEST_S:
        raise BadInput(f"{text!r} is no time", remedy="200us, 10ms, 2s, 1m, at most a year")
    return number * _TIMES[unit]


def _split(text: str) -> tuple[float, str]:
    digits = text.strip().rstrip(_LETTERS)
    try:
        number = float(digits)
    except ValueError:
        return 0.0, "?"
    return (number if math.isfinite(number) else 0.0), text.strip()[len(digits) :]


def patterns(values: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns from options: each value may hold several, separated by commas. Raises BadInput."""
    parts = tuple(
        part
        for value in values
        for part in ([value] if "re:" in value else value.split(","))  # {1,2} is one
    )
    if not all(parts):
        raise BadInput(
            "an empty pattern", cause="an empty option, or a comma too much", remedy="'*' for all"
        )
    return parts


def left_alone(foreign: tuple[int, ...]) -> str:
    """What to say of sites that somebody else changed, "" if there are none."""
    if not foreign:
        return ""
    shown = ", ".join(f"{ip:#x}" for ip in foreign[:4])
    return f"; {len(foreign)} left alone, somebody else changed them ({shown})"


pid_option = click.option("-p", "--pid", type=int, help="The process.")
filter_option = click.option(
    "-F", "--filter", "wanted", multiple=True, metavar="GLOB",
    help="Functions to trace: GLOB, MODULE!GLOB, re:EXPR, 0xADDRESS, the index of `fentry list "
    "--index`; !GLOB takes away. May be given again. Default: all.",
)  # fmt: skip
notrace_option = click.option(
    "-N", "--notrace", "unwanted", multiple=True, metavar="GLOB",
    help="Functions not to trace, of those chosen by -F.",
)  # fmt: skip
duration_option = click.option(
    "-d", "--duration", metavar="TIME", help="Stop after this time (10ms, 2s, 1m)."
)
max_stop_option = click.option(
    "--max-stop", default="1s", show_default=True, metavar="TIME",
    help="Refuse what would stop the process for longer (never to restore it).",
)  # fmt: skip
command_argument = click.argument(
    "command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD [ARG...]]"
)

OURS_BEFORE_COMMAND = {"allow_interspersed_args": False}
"""Context settings: what follows the first word of a command belongs to the command."""
