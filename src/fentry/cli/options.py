"""Options that several commands share, and their units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from fentry.errors import BadInput
from fentry.process.proc import list_tids

if TYPE_CHECKING:
    from fentry.dispatch.followed import Followed
    from fentry.dispatch.threads import ThreadFilter

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


def thread_filter(
    pid: int | None,
    tids: tuple[str, ...],
    not_tids: tuple[str, ...],
    names: tuple[str, ...],
    follow: bool,
) -> ThreadFilter:
    """The threads that options choose, all if there are none. Raises BadInput."""
    from fentry.dispatch.threads import ThreadFilter, check  # what only reads traces needs none

    wanted = ThreadFilter(_numbers(tids), _numbers(not_tids), names, follow)
    if pid is None and (wanted.tids or wanted.notrace_tids):
        raise BadInput(
            "--tid and --not-tid need -p PID",
            cause="a command that begins has no threads yet",
            remedy="--thread GLOB",
        )
    if pid is not None and (living := frozenset(list_tids(pid))):
        check(wanted, pid, living)
    return wanted


def _numbers(values: tuple[str, ...]) -> frozenset[int]:
    words = [word.strip() for value in values for word in value.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdigit())]
    if wrong:
        raise BadInput(f"{wrong[0]!r} is no thread id", remedy="--tid 1234,1235")
    return frozenset(map(int, words))


def unnamed(names: tuple[str, ...]) -> str:
    """What to say of names that no thread had, "" if there are none."""
    return f"; no thread was named {' or '.join(names)}" if names else ""


def unloaded(names: Sequence[str]) -> str:
    """What to say of libraries that never came, "" if there are none."""
    return f"; {' and '.join(names)} {'was' if len(names) == 1 else 'were'} never loaded" * bool(
        names
    )


def children_line(followed: Followed | None) -> str:
    """What to say of forked children that were followed, "" if there was none."""
    if followed is None:
        return ""
    text = f"; {followed.count} forked children seen" if followed.count else ""
    if followed.unreachable:
        shown = ", ".join(f"{pid}: {why}" for pid, why in list(followed.unreachable.items())[:4])
        text += f"; {len(followed.unreachable)} children are silent and not restored ({shown})"
    return text


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
    "--index`; part:WORD parts of them (f.cold); !WORD takes away. May be given again. Default: "
    "all, no parts.",
)  # fmt: skip
notrace_option = click.option(
    "-N", "--notrace", "unwanted", multiple=True, metavar="GLOB",
    help="Functions not to trace, of those chosen by -F.",
)  # fmt: skip
_THREAD_OPTIONS = (
    click.option(
        "--tid", "tids", multiple=True, metavar="TID",
        help="Trace these threads of the process only: TID[,TID...]. May be given again.",
    ),
    click.option(
        "--not-tid", "not_tids", multiple=True, metavar="TID",
        help="Threads not to trace, also of those chosen.",
    ),
    click.option(
        "--thread", "thread_names", multiple=True, metavar="GLOB",
        help="Trace threads while their name matches.",
    ),
    click.option(
        "-f", "--follow", is_flag=True,
        help="Children that are forked are traced as well, and threads that are made later beside "
        "chosen ones.",
    ),
)  # fmt: skip


def thread_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `thread_filter`, on a command."""
    for option in reversed(_THREAD_OPTIONS):
        command = option(command)
    return command


duration_option = click.option(
    "-d", "--duration", metavar="TIME", help="Stop after this time (10ms, 2s, 1m)."
)
buffer_option = click.option(
    "-m", "--buffer", default="8M", show_default=True, help="Most ring bytes for each CPU."
)
clock_option = click.option(
    "--clock", type=click.Choice(["tsc", "percpu-counter"]), default="tsc", show_default=True,
    help="What records are dated by: time, or (cheaper) their order on each CPU only.",
)  # fmt: skip
no_parent_option = click.option(
    "--no-parent", is_flag=True, help="Records of 16 bytes, without the caller."
)
max_stop_option = click.option(
    "--max-stop", default="1s", show_default=True, metavar="TIME",
    help="Refuse what would stop the process for longer (never to restore it).",
)  # fmt: skip
dispatch_option = click.option(
    "--dispatch", type=click.Choice(["sets", "list"]), default="sets", show_default=True,
    help="What a function calls: code for exactly its users, or one list of all users, to compare.",
)  # fmt: skip
command_argument = click.argument(
    "command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD [ARG...]]"
)

OURS_BEFORE_COMMAND = {"allow_interspersed_args": False}
"""Context settings: what follows the first word of a command belongs to the command."""
